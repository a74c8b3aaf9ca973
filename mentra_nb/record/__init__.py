"""The record of every event, in files that DuckDB reads."""
