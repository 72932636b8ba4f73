"""What each anchor should score high, how strongly, what is unknown, what weighs how much."""

from margins.targets.pytree import register
from margins.targets.reading import TargetBlock
from margins.targets.storage import Positives
from margins.targets.targets import Targets

register()

__all__ = ["Positives", "TargetBlock", "Targets"]
