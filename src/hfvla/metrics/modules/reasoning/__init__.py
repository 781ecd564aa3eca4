"""The `reasoning` metric: `evaluate.load` reads this folder."""
