"""Weights of loss terms that the gradients decide."""
