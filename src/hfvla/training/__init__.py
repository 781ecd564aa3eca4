"""From a recipe to trained weights: stages, adapters, checkpoints, the trainer, runs, estimates."""
