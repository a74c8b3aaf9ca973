"""The record: a log of every event, in files that DuckDB reads."""
