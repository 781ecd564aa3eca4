"""Options and shapes of pretrained backbones: what recipes may choose, and how large it is."""
