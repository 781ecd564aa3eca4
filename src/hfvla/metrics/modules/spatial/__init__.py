"""The `spatial` metric: `evaluate.load` reads this folder."""
