"""Designs over whole trainings that are no comparison of recipes: by number of labels, by new classes."""
