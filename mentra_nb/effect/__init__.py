"""What calls did to files: as data, applied as a whole or not at all, kept so that it can be undone."""
