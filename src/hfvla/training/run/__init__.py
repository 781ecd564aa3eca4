"""A run of a recipe: its stages, folder, caches, records."""

from hfvla._moved import old_names

__getattr__ = old_names("hfvla.training.run", "hfvla.training.run.run")
