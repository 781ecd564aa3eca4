"""The `plan` metric: `evaluate.load` reads this folder."""
