"""Untrusted text as static HTML and plain text that is safe to show."""
