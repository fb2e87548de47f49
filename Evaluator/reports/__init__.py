"""What an evaluation says: the numbers, the comparison of two, and how they are shown."""
