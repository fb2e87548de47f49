"""The prompts of self-play: what they are about, who writes them, which are not wanted."""
