"""A dataset in numbers: what is counted of each row, what follows from the counts, and how that is shown."""
