"""Memory and speed of training on a GPU."""
