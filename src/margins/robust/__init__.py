"""Training against the worst change of an input."""

from margins.robust.inputs import Movable, movable
from margins.robust.pgd import PGD, evaluating
from margins.robust.smooth_adversarial import SmoothAdversarial, margin_change, most_changed

__all__ = [
    "PGD",
    "Movable",
    "SmoothAdversarial",
    "evaluating",
    "margin_change",
    "most_changed",
    "movable",
]
