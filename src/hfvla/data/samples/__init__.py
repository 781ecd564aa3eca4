"""What a row of each kind holds."""
