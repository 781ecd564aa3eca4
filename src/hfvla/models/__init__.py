"""The families, a folder each; none imports another."""
