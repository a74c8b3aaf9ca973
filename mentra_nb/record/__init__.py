"""The log of everything that happened, as files that DuckDB reads."""
