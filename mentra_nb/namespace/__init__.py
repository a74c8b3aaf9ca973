"""The names of a kernel as they were: what code changed, what can be restored, and what cannot."""
