"""How a memory search splits text into words and ranks its hits, the same on every engine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

MAX_WORDS = 64
"""The number of different words of a query that are searched for, its last ones."""
KIND_BONUS = {"fact": 3.0, "summary": 1.5, "episode": 0.0}
PINNED_BONUS = 2.0
EMPTY_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a about after all also am an and any are as at be been before but by can could did do does done for from "
        "get had has have he her his how i if in into is it its just me more most my no not now of on one or our "
        "out she should so some such than that the their them then there these they this to up us use was we were "
        "what when where which who why will with would you your user assistant tool result ",
    )
)
"""Words that say nothing of what a text is about. They are searched for only if a query has no others."""


def words_of(query: str) -> list[str]:
    """Return the different words of a query that are searched for, at most `MAX_WORDS`, each where it is last.

    Empty when it has no letters or digits.
    """
    found = list(dict.fromkeys(reversed(all_words(query))))
    return ([word for word in found if word not in EMPTY_WORDS] or found)[:MAX_WORDS][::-1]


def all_words(text: str) -> list[str]:
    """Return the words of a text in lower case: runs of letters and digits."""
    return re.findall(r"[^\W_]+", text.lower())


def candidate_count(limit: int) -> int:
    """Return how many rows to take from the engine's own ranking so that `score` can reorder them."""
    return max(limit, min(max(5 * limit, 10), 50))


def closeness(query: Sequence[str], content: Sequence[str]) -> float:
    """Return the share of the neighbouring words of a query that are neighbours in a text too, from 0 to 1."""
    pairs = set(pairwise(query))
    return len(pairs & set(pairwise(content))) / len(pairs) if pairs else 0.0


def score(relevance: float, best: float, kind: str, *, pinned: bool, age: float) -> float:
    """Return the score of a hit: the match of its text (0 to 8), its kind, whether it is pinned, how new it is.

    Args:
        relevance: The engine's measure of the match, from 0 up.
        best: The greatest relevance among the hits.
        kind: A key of `KIND_BONUS`.
        pinned: Whether the memory is pinned.
        age: Seconds since the memory was made.
    """
    text = 8 * relevance / best if best > 0 else 0.0
    recency = 0.5 / (1 + max(age, 0) / 86400)
    return text + KIND_BONUS[kind] + (PINNED_BONUS if pinned else 0) + recency


def reason(row: Any, words: Sequence[str]) -> str | None:
    """Return in words what made this row a hit, or `None` if nothing did. Of its words the two longest are named."""
    there = set(all_words(row["content"]))
    matched = sorted((word for word in words if word in there), key=len, reverse=True)[:2]
    reasons = [f"matched {','.join(matched)}"] if matched else []
    reasons += [row["kind"]] if row["kind"] != "episode" else []
    reasons += ["manual"] if row["pinned"] or row["source"] == "manual_pin" else []
    return "; ".join(reasons) or None
