"""A stage of a recipe: which parameters train, when, on which rows."""
