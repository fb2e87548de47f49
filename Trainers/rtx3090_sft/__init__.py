"""Supervised fine-tuning on one 24 GB card."""
