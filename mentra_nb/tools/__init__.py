"""What a model can do: the tool protocol, `@tool`, the scheduler with its gates, and the built-in tools."""
