"""What is sent of a conversation that is too long for its model: estimates, shortened results, and summaries."""
