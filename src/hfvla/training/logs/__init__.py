"""What a stage writes while it trains: loss terms, energy, trackers, the summary."""
