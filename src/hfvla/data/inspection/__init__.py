"""Looking at data before anybody trains on it: what is there, what leaks, what stands out; and writing it anew."""
