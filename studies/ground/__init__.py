"""What studies have in common: small data, small networks, and a plain loop that trains them."""

from ground.data import Division, Rows, digits, divided, flipped, tabular
from ground.training import accuracy, fit, perceptron, predict

__all__ = [
    "Division",
    "Rows",
    "accuracy",
    "digits",
    "divided",
    "fit",
    "flipped",
    "perceptron",
    "predict",
    "tabular",
]
