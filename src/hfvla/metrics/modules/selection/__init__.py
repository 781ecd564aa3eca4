"""The `selection` metric: `evaluate.load` reads this folder."""
