"""KTO on one 24 GB card."""
