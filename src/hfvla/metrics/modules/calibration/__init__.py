"""The `calibration` metric: `evaluate.load` reads this folder."""
