"""The rows of a comparison and their roles in every outer fold."""
