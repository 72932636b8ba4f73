"""The factored output layer, whose cost does not grow with the classes."""
