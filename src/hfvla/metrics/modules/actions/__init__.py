"""The `actions` metric: `evaluate.load` reads this folder."""
