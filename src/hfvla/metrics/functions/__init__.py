"""Pure numpy arithmetic behind the metric modules: arrays in, numbers out, no torch and no I/O."""
