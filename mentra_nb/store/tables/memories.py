"""Long-term memory: records found by their words. How words are matched is the engine's; what counts is said here."""

from __future__ import annotations

import json
import re
import time
from abc import abstractmethod
from collections.abc import Collection, Sequence
from typing import Any

from mentra_nb.store.records import MemoryHit, MemoryRecord
from mentra_nb.store.transactions import Database, Transaction, insert, marks, to_json

MAX_WORDS = 64
"""Of a long query its last different words count."""
KIND_BONUS = {"fact": 3.0, "summary": 1.5, "episode": 0.0}
PINNED_BONUS = 2.0


class MemoryTable(Database):
    async def save_memories(self, records: Sequence[MemoryRecord]) -> None:
        def work(db: Transaction) -> None:
            for record in records:
                row = {**record.model_dump(), "metadata": to_json(record.metadata), "tombstoned_at": None}
                insert(db, "memories", row, replace="agent_id, record_id")
                self._index_memory(db, record)

        await self.write(work)

    async def load_memory(self, agent_id: str, record_id: str) -> MemoryRecord | None:
        statement = "SELECT * FROM memories WHERE agent_id = ? AND record_id = ? AND tombstoned_at IS NULL"
        row = await self.read(lambda db: db.execute(statement, (agent_id, record_id)).fetchone())
        return None if row is None else MemoryRecord.model_validate(_fields(row))

    async def search_memories(self, agent_id: str, query: str, limit: int) -> list[MemoryHit]:
        words = words_of(query)
        if not words or limit <= 0:
            return []
        candidates = max(limit, min(max(5 * limit, 10), 50))
        rows = await self.read(lambda db: self._match_memories(db, agent_id, words, candidates))
        now = time.time()
        hits = [_hit(row, words, now) for row in rows]
        return sorted(hits, key=lambda hit: (-hit.score, -hit.created_at))[:limit]

    @abstractmethod
    def _index_memory(self, db: Transaction, record: MemoryRecord) -> None:
        """See to it that a record that was just saved is found by its words."""

    @abstractmethod
    def _match_memories(self, db: Transaction, agent_id: str, words: Sequence[str], count: int) -> list[Any]:
        """The agent's rows that have any of the words, best `relevance` (0 and up) first; no forgotten ones."""

    async def forget_memories(self, agent_id: str, record_ids: Collection[str]) -> int:
        statement = "UPDATE memories SET tombstoned_at = ? WHERE tombstoned_at IS NULL AND "
        return await self._those(statement, [time.time()], agent_id, record_ids)

    async def delete_memories(self, agent_id: str, record_ids: Collection[str]) -> int:
        return await self._those("DELETE FROM memories WHERE ", [], agent_id, record_ids)

    async def _those(self, statement: str, parameters: list[Any], agent_id: str, record_ids: Collection[str]) -> int:
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


def words_of(query: str) -> list[str]:
    """What can be searched for in a query: its different words, of letters and digits."""
    return list(dict.fromkeys(all_words(query)))[-MAX_WORDS:]


def all_words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def score(relevance: float, kind: str, *, pinned: bool, age: float) -> float:
    """How good a hit is: its text (0 to 8), its kind, whether it was pinned, and how new it is (`age` in seconds)."""
    text = 8 * relevance / (1 + relevance)
    recency = 0.5 / (1 + max(age, 0) / 86400)
    return text + KIND_BONUS[kind] + (PINNED_BONUS if pinned else 0) + recency


def _hit(row: Any, words: Sequence[str], now: float) -> MemoryHit:
    fields = _fields(row)
    points = score(row["relevance"], row["kind"], pinned=bool(row["pinned"]), age=now - row["created_at"])
    content = row["content"].lower()
    matched = [word for word in words if word in content][:2]
    why = [f"matched {','.join(matched)}"] if matched else []
    why += [row["kind"]] if row["kind"] != "episode" else []
    why += ["manual"] if row["pinned"] or row["source"] == "manual_pin" else []
    return MemoryHit.model_validate({**fields, "score": points, "why_retrieved": "; ".join(why) or None})


def _fields(row: Any) -> dict[str, Any]:
    return {**dict(row), "metadata": json.loads(row["metadata"])}
