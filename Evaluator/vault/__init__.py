"""A throw-away Obsidian vault in memory, and what each tool does to it."""
