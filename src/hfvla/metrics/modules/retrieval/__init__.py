"""The `retrieval` metric: `evaluate.load` reads this folder."""
