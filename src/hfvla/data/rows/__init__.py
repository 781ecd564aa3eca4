"""Rows and what becomes of them: mixtures, splits, epochs, groups."""
