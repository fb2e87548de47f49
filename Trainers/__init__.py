"""Programs that train a model on the rows, and that make of the result what others load."""
