"""What each anchor should score high, how strongly, what is unknown, what weighs how much."""

from margins.targets.storage import Positives
from margins.targets.targets import TargetBlock, Targets

__all__ = ["Positives", "TargetBlock", "Targets"]
