"""How well the search finds a note by a question in other words: no worse than a library for BM25 on the same set.

The notes are 5,000 verses of the American Standard Version, and the questions are made of the same verses in the
wording of the King James Version; both are in the public domain. A question's first field is the line of its note.
"""

from __future__ import annotations

import lzma
import time
from collections.abc import Callable
from pathlib import Path

import bm25s  # type: ignore[import-untyped]
import pytest

from mentra_nb.store.records import MemoryQuery, MemoryRecord
from mentra_nb.store.sql_store import SqlStore
from mentra_nb.store.tables.ranking import all_words, words_of

pytestmark = pytest.mark.anyio
HERE = Path(__file__).parent
NOTES = lzma.decompress((HERE / "notes.txt.xz").read_bytes()).decode().splitlines()
QUESTIONS = [line.split("\t") for line in (HERE / "questions.tsv").read_text(encoding="utf-8").splitlines()]


def library_recall(questions: list[list[str]]) -> float:
    """The share of questions whose note is among the first five of the library, with the words that we take."""
    library = bm25s.BM25(k1=1.2, b=0.75)
    library.index([all_words(note) for note in NOTES], show_progress=False)
    found, _ = library.retrieve([words_of(said) for _, said in questions], k=5, show_progress=False, n_threads=1)
    return sum(int(at) in best for (at, _), best in zip(questions, found, strict=True)) / len(questions)


async def our_recall(store: SqlStore, questions: list[list[str]]) -> float:
    now = time.time()
    await store.save_memories(
        [
            MemoryRecord(record_id=str(n), agent_id="a", kind="episode", content=note, created_at=now)
            for n, note in enumerate(NOTES)
        ]
    )
    hits = [await store.search_memories(MemoryQuery(("a",), said, 5)) for _, said in questions]
    best = [{hit.record_id for hit in each} for each in hits]
    return sum(at in each for (at, _), each in zip(questions, best, strict=True)) / len(questions)


def test_the_set_is_large_and_labelled() -> None:
    assert (len(NOTES), len(set(NOTES)) > 4_990, len(QUESTIONS)) == (5_000, True, 600)
    assert all(0 <= int(at) < len(NOTES) for at, _ in QUESTIONS)


async def test_recall_at_5_is_not_below_that_of_a_library_for_bm25(
    store: SqlStore, record_property: Callable[[str, float], None]
) -> None:
    questions = QUESTIONS if store.where.endswith(".sqlite") else QUESTIONS[:150]  # each takes longer there
    ours, theirs = await our_recall(store, questions), library_recall(questions)
    record_property("recall_at_5", ours)
    record_property("library_recall_at_5", theirs)
    assert ours >= theirs
