"""Using checkpoints: an index of pictures, and search in it by text."""
