"""What a checkpoint is worth: scores with baselines and intervals, figures, reports, comparisons."""
