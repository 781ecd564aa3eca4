"""The `qa` metric: `evaluate.load` reads this folder."""
