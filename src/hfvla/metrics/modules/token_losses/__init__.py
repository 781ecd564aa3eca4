"""The `boxes` metric: `evaluate.load` reads this folder."""
