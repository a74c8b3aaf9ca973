"""The tools that come with the runtime."""
