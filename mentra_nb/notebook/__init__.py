"""The notebook: the magic, the streaming view, the approval card, and the pump that serves clicks meanwhile."""
