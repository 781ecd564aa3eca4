"""A run that can be killed at any moment and goes on to the bit: checkpoints, the run folder and its lock."""
