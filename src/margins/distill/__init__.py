"""Teachers: training one model on what others say."""

from margins.distill.assistive import TOLERANT, TOUGH, Assistance, AssistiveRegression
from margins.distill.multi_teacher import MultiTeacherFeatures
from margins.distill.shapes import ShapeModel, shape_smooth

__all__ = [
    "TOLERANT",
    "TOUGH",
    "Assistance",
    "AssistiveRegression",
    "MultiTeacherFeatures",
    "ShapeModel",
    "shape_smooth",
]
