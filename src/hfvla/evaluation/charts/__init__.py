"""Figures as SVG: quick to draw, sharp at any size, with their numbers in them for whoever points at a mark."""
