"""What agents remember beyond a conversation: what is kept of a turn, how it is found again, and the tools for it."""
