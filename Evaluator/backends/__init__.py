"""One module for each kind of API behind a ModelClient."""
