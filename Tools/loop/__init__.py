"""The loop of self-play and training: the commands of a round, what came of it, when to stop, the page."""
