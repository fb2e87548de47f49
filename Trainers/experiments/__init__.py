"""The experiment: does a round of self-play and KTO help? Its arms, their run, and the table of what came out."""
