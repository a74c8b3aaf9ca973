"""Running a command."""
