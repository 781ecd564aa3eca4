"""The metrics as `evaluate` modules."""
