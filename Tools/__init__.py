"""Programs that make and look at training data."""
