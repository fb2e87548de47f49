"""From a trained adapter to files that others load."""
