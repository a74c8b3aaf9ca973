"""The table of memories, searched by words. The engine matches the words; `ranking` orders the hits."""

from __future__ import annotations

import json
import time
from abc import abstractmethod
from collections.abc import Collection, Sequence
from typing import Any, ClassVar

from mentra_nb.store import records as r
from mentra_nb.store.tables.ranking import all_words, candidate_count, closeness, reason, score, words_of
from mentra_nb.store.transactions import Database, Transaction, insert, marks, to_json

COLUMNS = (
    "record_id, agent_id, kind, content, source_revision, created_at, metadata, source, pinned, made_by, session_id, "
    "run_id, cell_id"
)


class MemoryTable(Database):
    also_forgotten: ClassVar[str] = ""
    """What an engine sets in the row of a forgotten memory besides."""

    async def save_memories(self, records: Sequence[r.MemoryRecord]) -> None:
        def work(db: Transaction) -> None:
            for record in records:
                self._save_memory(db, record)

        await self.write(work)

    async def add_memories(self, records: Sequence[r.MemoryRecord]) -> int:
        def work(db: Transaction) -> int:
            statement = "SELECT 1 FROM memories WHERE agent_id = ? AND record_id = ?"
            new = [x for x in records if db.execute(statement, (x.agent_id, x.record_id)).fetchone() is None]
            for record in new:
                self._save_memory(db, record)
            return len(new)

        return await self.write(work)

    def _save_memory(self, db: Transaction, record: r.MemoryRecord) -> None:
        row = {**record.model_dump(), "metadata": to_json(record.metadata), "tombstoned_at": None}
        insert(db, "memories", row, replace="agent_id, record_id")
        self._index_memory(db, record)

    async def load_memory(self, agent_id: str, record_id: str) -> r.MemoryRecord | None:
        statement = f"SELECT {COLUMNS} FROM memories WHERE agent_id = ? AND record_id = ? AND tombstoned_at IS NULL"
        row = await self.read(lambda db: db.execute(statement, (agent_id, record_id)).fetchone())
        return None if row is None else r.MemoryRecord.model_validate(_fields(row))

    async def list_memories(self, owners: Collection[str]) -> list[r.MemoryRecord]:
        if not owners:
            return []
        statement = (
            f"SELECT {COLUMNS} FROM memories WHERE agent_id IN ({marks([*owners])}) AND tombstoned_at IS NULL "
            "ORDER BY created_at DESC, number DESC"
        )
        rows = await self.read(lambda db: db.execute(statement, [*owners]).fetchall())
        return [r.MemoryRecord.model_validate(_fields(row)) for row in rows]

    async def search_memories(self, query: r.MemoryQuery) -> list[r.MemoryHit]:
        words, until = words_of(query.text), time.monotonic() + (query.seconds or 3600)
        if not words or query.limit <= 0 or not query.owners:
            return []
        count = candidate_count(query.limit)
        rows = await self.read(lambda db: self._match_memories(db, query, words, count, until))
        hits = _ranked(rows, all_words(query.text))[: query.limit]
        return [_hit(row, points, words) for row, points in hits]

    @abstractmethod
    def _index_memory(self, db: Transaction, record: r.MemoryRecord) -> None:
        """Add the words of a saved record to the engine's index."""

    @abstractmethod
    def _match_memories(
        self, db: Transaction, query: r.MemoryQuery, words: Sequence[str], count: int, until: float
    ) -> list[Any]:
        """Return `count` rows of the owners that have any of the words, best `relevance` (from 0 up) first.

        Forgotten memories are left out. When `time.monotonic()` is past `until` it returns what it has found, and
        raises `StoreError` if that is nothing.
        """

    async def forget_memories(self, agent_id: str, record_ids: Collection[str]) -> int:
        changed = f"tombstoned_at = ?, content = '', metadata = '{{}}'{self.also_forgotten}"
        statement = f"UPDATE memories SET {changed} WHERE tombstoned_at IS NULL AND "
        return await self._change(statement, [time.time()], agent_id, record_ids)

    async def delete_memories(self, agent_id: str, record_ids: Collection[str]) -> int:
        return await self._change("DELETE FROM memories WHERE ", [], agent_id, record_ids)

    async def delete_memories_of(self, agent_id: str) -> None:
        await self.write(lambda db: delete_memories_of(db, [agent_id]))

    async def _change(self, statement: str, parameters: list[Any], agent_id: str, record_ids: Collection[str]) -> int:
        if not record_ids:
            return 0
        statement += f"agent_id = ? AND record_id IN ({marks([*record_ids])})"
        parameters = [*parameters, agent_id, *record_ids]
        return await self.write(lambda db: db.execute(statement, parameters).rowcount)

    async def load_memory_cursor(self, agent_id: str) -> int | None:
        statement = "SELECT revision FROM memory_cursors WHERE agent_id = ?"
        row = await self.read(lambda db: db.execute(statement, (agent_id,)).fetchone())
        return None if row is None else int(row["revision"])

    async def save_memory_cursor(self, agent_id: str, revision: int) -> None:
        row = {"agent_id": agent_id, "revision": revision}
        await self.write(lambda db: insert(db, "memory_cursors", row, replace="agent_id"))


def delete_memories_of(db: Transaction, agents: Sequence[str]) -> None:
    """Delete the memories of agents, and what was kept of their turns for others."""
    which = marks(agents)
    db.execute(f"DELETE FROM memories WHERE agent_id IN ({which})", agents)
    db.execute(f"DELETE FROM memories WHERE kind <> 'fact' AND made_by IN ({which})", agents)


def visible(query: r.MemoryQuery) -> tuple[str, list[Any]]:
    """Return the condition for the memories that a search may return, and its parameters."""
    condition, parameters = f"agent_id IN ({marks(query.owners)}) AND tombstoned_at IS NULL", [*query.owners]
    if query.seen_by is None:
        return condition, parameters
    seen = " AND (made_by IS NULL OR made_by <> ? OR kind NOT IN ('episode', 'summary') OR source_revision <= ?)"
    return condition + seen, [*parameters, query.seen_by, query.seen_from]


def too_slow(query: r.MemoryQuery) -> str:
    """Return the message for a search that found nothing in the time it may take."""
    return f"memory search timed out after {query.seconds} s"


def _ranked(rows: Sequence[Any], said: Sequence[str]) -> list[tuple[Any, float]]:
    """Return the rows with their scores, best first, and of equal scores the newest."""
    matches = [row["relevance"] * (1 + closeness(said, all_words(row["content"]))) for row in rows]
    best, now = max(matches, default=0.0), time.time()
    scored = [
        (row, score(match, best, row["kind"], pinned=bool(row["pinned"]), age=now - row["created_at"]))
        for row, match in zip(rows, matches, strict=True)
    ]
    return sorted(scored, key=lambda each: (-each[1], -each[0]["created_at"]))


def _hit(row: Any, points: float, words: Sequence[str]) -> r.MemoryHit:
    return r.MemoryHit.model_validate({**_fields(row), "score": points, "why_retrieved": reason(row, words)})


def _fields(row: Any) -> dict[str, Any]:
    fields = {**dict(row), "metadata": json.loads(row["metadata"])}
    fields.pop("relevance", None)
    return fields
