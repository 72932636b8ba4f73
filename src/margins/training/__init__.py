"""Training: recipes, and the plain trainer that runs them."""

from margins.training.model import Classifier
from margins.training.objective import Objective
from margins.training.recipes import Recipe, all_recipes, find_recipe, recipes_for
from margins.training.trainer import Fitted, TrainingSettings, predict_proba, train

__all__ = [
    "Classifier",
    "Fitted",
    "Objective",
    "Recipe",
    "TrainingSettings",
    "all_recipes",
    "find_recipe",
    "predict_proba",
    "recipes_for",
    "train",
]
