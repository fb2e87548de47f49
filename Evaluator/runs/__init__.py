"""A run: prompts asked of a model by many threads, each answer judged, everything written down as it comes."""
