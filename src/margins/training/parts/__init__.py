"""The parts that a recipe chooses from, one file a station or larger kind."""
