"""The trainer of a stage, and what it does to losses, batches and gradients."""
