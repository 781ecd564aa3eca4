"""Blocks that families are built of."""
