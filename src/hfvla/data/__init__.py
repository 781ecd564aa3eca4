"""Rows: sources that read them, samples that they are, and how an epoch is made of them."""
