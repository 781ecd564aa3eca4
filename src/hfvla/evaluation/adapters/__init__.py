"""hfvla's checkpoints within other people's evaluation packages; each module is imported by its package alone."""
