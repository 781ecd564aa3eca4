"""What a stage writes and reads: checkpoints, audit, hand-over, adapters, merging."""
