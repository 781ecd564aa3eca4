"""Loss terms as functions of tensors, and the one place that weighs them."""
