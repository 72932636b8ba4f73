"""Who takes part: recipes with their reasons and what a search may change of them."""
