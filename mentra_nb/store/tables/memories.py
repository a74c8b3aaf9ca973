"""The table of memories, searched by words. The engine matches the words; `ranking` orders the hits."""

from __future__ import annotations

import json
import time
from abc import abstractmethod
from collections.abc import Collection, Sequence
from typing import Any

from mentra_nb.store import records as r
from mentra_nb.store.tables.ranking import candidate_count, reason, score, words_of
from mentra_nb.store.transactions import Database, Transaction, insert, marks, to_json


class MemoryTable(Database):
    async def save_memories(self, records: Sequence[r.MemoryRecord]) -> None:
        def work(db: Transaction) -> None:
            for record in records:
                row = {**record.model_dump(), "metadata": to_json(record.metadata), "tombstoned_at": None}
                insert(db, "memories", row, replace="agent_id, record_id")
                self._index_memory(db, record)

        await self.write(work)

    async def load_memory(self, agent_id: str, record_id: str) -> r.MemoryRecord | None:
        statement = "SELECT * FROM memories WHERE agent_id = ? AND record_id = ? AND tombstoned_at IS NULL"
        row = await self.read(lambda db: db.execute(statement, (agent_id, record_id)).fetchone())
        return None if row is None else r.MemoryRecord.model_validate(_fields(row))

    async def search_memories(self, agent_id: str, query: str, limit: int) -> list[r.MemoryHit]:
        words = words_of(query)
        if not words or limit <= 0:
            return []
        rows = await self.read(lambda db: self._match_memories(db, agent_id, words, candidate_count(limit)))
        now = time.time()
        hits = [_hit(row, words, now) for row in rows]
        return sorted(hits, key=lambda hit: (-hit.score, -hit.created_at))[:limit]

    @abstractmethod
    def _index_memory(self, db: Transaction, record: r.MemoryRecord) -> None:
        """Add the words of a saved record to the engine's index."""

    @abstractmethod
    def _match_memories(self, db: Transaction, agent_id: str, words: Sequence[str], count: int) -> list[Any]:
        """Return `count` rows of the agent that have any of the words, best `relevance` (from 0 up) first.

        Forgotten memories are left out.
        """

    async def forget_memories(self, agent_id: str, record_ids: Collection[str]) -> int:
        statement = "UPDATE memories SET tombstoned_at = ? WHERE tombstoned_at IS NULL AND "
        return await self._change(statement, [time.time()], agent_id, record_ids)

    async def delete_memories(self, agent_id: str, record_ids: Collection[str]) -> int:
        return await self._change("DELETE FROM memories WHERE ", [], agent_id, record_ids)

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


def _hit(row: Any, words: Sequence[str], now: float) -> r.MemoryHit:
    points = score(row["relevance"], row["kind"], pinned=bool(row["pinned"]), age=now - row["created_at"])
    return r.MemoryHit.model_validate({**_fields(row), "score": points, "why_retrieved": reason(row, words)})


def _fields(row: Any) -> dict[str, Any]:
    return {**dict(row), "metadata": json.loads(row["metadata"])}
