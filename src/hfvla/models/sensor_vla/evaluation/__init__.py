"""Scores, baselines, ablations and figures of this family."""
