"""Upkeep of complete segments: compaction, pruning, verification, shipping to a lake."""
