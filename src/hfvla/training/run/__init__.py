"""A run of a recipe: its stages, folder, caches, records."""
