"""Task boards: their rules, the tools that change them, and what an agent keeps of its board."""
