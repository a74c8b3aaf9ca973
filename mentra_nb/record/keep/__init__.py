"""What happens to complete segments: compaction, pruning, verification, shipping to a lake."""
