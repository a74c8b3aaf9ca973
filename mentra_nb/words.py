"""Counts in words."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return the number with its noun, which takes an `s` unless the number is 1: `1 turn`, `2 turns`, `0 turns`."""
    return f"{number} {noun}{'s' * (number != 1)}"
