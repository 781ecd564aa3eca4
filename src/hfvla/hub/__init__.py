"""A checkpoint on its way to the hub: its model card, what of it is pushed, and the push itself."""
