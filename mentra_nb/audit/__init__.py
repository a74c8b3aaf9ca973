"""The record: a journal of every event, and the tables DuckDB makes of it."""
