"""The synchronous face of the runtime, for scripts and cells: a background engine, conversations, replies."""
