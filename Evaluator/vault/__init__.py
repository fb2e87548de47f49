"""A throw-away Obsidian vault in memory, what each tool does to it, and goals that say what should have happened."""
