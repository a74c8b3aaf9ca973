"""One agent: its transcript, its requests, its loop."""
