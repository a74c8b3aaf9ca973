"""The notebook face: the magic, the streaming view, the approval card, and the pump that keeps them alive."""
