"""The trainer of a stage, and what it does to losses, batches and gradients."""

from hfvla._moved import old_names

__getattr__ = old_names("hfvla.training.trainer", "hfvla.training.trainer.trainer")
