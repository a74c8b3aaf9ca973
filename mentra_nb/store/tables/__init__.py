"""The store's tables, one module each."""
