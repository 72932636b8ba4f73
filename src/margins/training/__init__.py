"""Training: recipes, the parts they choose from, and the trainer that runs them."""

from margins.training.network import Network
from margins.training.objective import Objective
from margins.training.objective_settings import ObjectiveSettings, TargetSettings
from margins.training.recipe import Recipe
from margins.training.trainer import EpochRecord, Fitted, Trainer, Watcher

__all__ = [
    "EpochRecord",
    "Fitted",
    "Network",
    "Objective",
    "ObjectiveSettings",
    "Recipe",
    "TargetSettings",
    "Trainer",
    "Watcher",
]
