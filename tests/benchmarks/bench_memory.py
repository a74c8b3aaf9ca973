"""What a recall adds to a turn among 100,000 memories of a project: wall and processor time, for a turn's query."""

from __future__ import annotations

import asyncio
import lzma
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from mentra_nb.content import Message
from mentra_nb.memory.keeper import RECALL_SECONDS
from mentra_nb.memory.recall import query_of, quoted
from mentra_nb.store.records import MemoryQuery, MemoryRecord
from mentra_nb.store.sqlite import SqliteStore

MEMORIES = 100_000
TURNS = 200
MOST_MS = 20.0
"""The most processor time that the median recall may take."""
HERE = Path(__file__).parents[1] / "memory"
NOTES = lzma.decompress((HERE / "notes.txt.xz").read_bytes()).decode().splitlines()
QUESTIONS = [line.split("\t")[1] for line in (HERE / "questions.tsv").read_text(encoding="utf-8").splitlines()]


def episodes(count: int) -> list[MemoryRecord]:
    """Return episodes of three notes each, in pairs that do not come again."""
    chance, now = random.Random(1), time.time()
    return [
        MemoryRecord(
            record_id=f"episode:{n}",
            agent_id="project:/work",
            kind="episode",
            content="\n".join(f"user: {note}" for note in chance.sample(NOTES, 3)),
            created_at=now - n,
            source="auto_ingest",
            made_by=f"agent-{n % 500}",
        )
        for n in range(count)
    ]


async def bench(store: SqliteStore) -> float:
    made = episodes(MEMORIES)
    for at in range(0, MEMORIES, 5_000):
        await store.save_memories(made[at : at + 5_000])
    wall, processor, found = [], [], 0
    for question in QUESTIONS[:TURNS]:
        began, worked = time.perf_counter(), time.process_time()
        text = query_of([Message.user("Look at the data."), Message.user(question)])
        query = MemoryQuery(("project:/work", "agent-1"), text, 3, "agent-1", 0, RECALL_SECONDS)
        found += len(quoted(await store.search_memories(query), 2_000))
        wall.append((time.perf_counter() - began) * 1000)
        processor.append((time.process_time() - worked) * 1000)
    for name, times in (("wall", wall), ("processor", processor)):
        cuts = statistics.quantiles(times, n=20)
        print(f"recall among {MEMORIES:,}, {name}: median {cuts[9]:.1f} ms, 95 % below {cuts[18]:.1f} ms")
    print(f"memories quoted: {found} in {TURNS} turns")
    return statistics.median(processor)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "state.sqlite")
        median = asyncio.run(bench(store))
        store.close()
    return median > MOST_MS


if __name__ == "__main__":
    sys.exit(main())
