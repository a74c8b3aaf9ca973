"""The memory of one agent: what its turns are given of it, what is kept of them, and what its tools do.

An agent has one when its runtime has the tool `memory_search` and its own settings do not leave it out. A tool profile
hides the tools and nothing else. What is kept is written after the turn has ended, not in it.
"""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any

import anyio

from mentra_nb import paths
from mentra_nb.agent.steering import Boundary
from mentra_nb.background.afterwards import Afterwards
from mentra_nb.content import Message
from mentra_nb.errors import StoreError
from mentra_nb.event.rare import (
    MemoryIngestFinished,
    MemoryIngestStarted,
    MemoryRecalled,
    MemorySearchFinished,
    MemorySearchStarted,
)
from mentra_nb.memory.config import MemoryConfig, owners_in
from mentra_nb.memory.episode import episode_of
from mentra_nb.memory.recall import query_of, quoted, recall_message
from mentra_nb.permission.asking import SessionPermissions
from mentra_nb.store.records import EntryKind, MemoryHit, MemoryQuery, MemoryRecord
from mentra_nb.tools.profile import whatever_is_offered

if TYPE_CHECKING:
    from mentra_nb.agent.agent import Agent

SEARCH = "memory_search"
"""The tool with which memory is on."""
RECALL_SECONDS = 0.25
"""How long a turn waits for what it is given."""
TOOL_SECONDS = 5.0
"""How long a search of the tool may take."""
PREVIEW = 120
"""Characters of a query that its event has."""


class AgentMemory:
    """A `RoundSource`, though it adds nothing to the conversation: a turn's recall is sent beside it, and not kept."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._recalled_in: int | None = None
        """The turn that has had its recall, by `run_generation`."""
        self.recalled: Message | None = None
        """What the latest turn was given."""

    @property
    def config(self) -> MemoryConfig:
        """What the runtime says about memory."""
        found: MemoryConfig = self._agent.environment.services.get(MemoryConfig) or MemoryConfig()
        return found

    @property
    def owners(self) -> tuple[str, ...]:
        """The owners whose memories the agent finds; the first has what it remembers."""
        agent = self._agent
        authorizer = agent.environment.authorizer
        project = authorizer.project if isinstance(authorizer, SessionPermissions) else None
        here = project or str(paths.project_root(agent.environment.working_directory))
        return owners_in(self.config.scope, agent.id, here)

    @property
    def is_on(self) -> bool:
        """Whether the agent remembers: its settings have the search, whatever a profile offers; subagents do not."""
        agent = self._agent
        has_search = SEARCH in whatever_is_offered(agent.environment.tools) and agent.config.offers(SEARCH)
        return self.config.enabled and has_search and agent.parent is None

    # ---- what the tools do ------------------------------------------------------------------------------------

    async def search(self, text: str, limit: int | None, run_id: str | None = None) -> list[MemoryHit]:
        """Return the best hits for any word of a text, best first. Raises `StoreError`."""
        most = self.config.tool_search_limit
        query = MemoryQuery(self.owners, text, max(0, min(limit or most, most, 10)), seconds=TOOL_SECONDS)
        return await self._search(query, run_id)

    async def pin(self, text: str, run_id: str | None = None) -> MemoryRecord:
        """Remember a text as a pinned fact. The same text is remembered once."""
        agent, owner = self._agent, self.owners[0]
        digest = hashlib.sha256(f"{owner}\n{text}".encode("utf-8", "replace")).hexdigest()[:16]
        made = MemoryRecord(
            record_id=f"fact:{agent.id}:manual:{digest}",
            agent_id=owner,
            kind="fact",
            content=text,
            source_revision=len(agent.transcript),
            created_at=time.time(),
            metadata={"origin": "manual_pin"},
            source="manual_pin",
            pinned=True,
            made_by=agent.id,
            run_id=run_id,
            **self._place(),
        )
        await agent.environment.store.save_memories([made])
        return made

    async def forget(self, record_id: str) -> bool:
        """Forget a memory that the agent finds. Returns `False` if there is none of that id."""
        for owner in self.owners:
            if await self._agent.environment.store.forget_memories(owner, [record_id]):
                return True
        return False

    def _place(self) -> dict[str, Any]:
        origin = self._agent.origin
        return {"session_id": origin.session_id, "cell_id": origin.cell_id}

    async def _search(self, query: MemoryQuery, run_id: str | None) -> list[MemoryHit]:
        """Search, and record it."""
        agent, about = self._agent, dict[str, Any](agent_id=self._agent.id, run_id=run_id)
        emit = agent.environment.bus.emit
        emit(MemorySearchStarted(**about, limit=query.limit, query_preview=query.text.strip()[:PREVIEW]))
        hits: list[MemoryHit] = []
        why: str | None = "stopped"
        try:
            with anyio.fail_after(query.seconds):
                hits = await agent.environment.store.search_memories(query)
            why = None
        except TimeoutError:
            why = "memory search timed out"
            raise StoreError(why) from None
        except StoreError as error:
            why = str(error)
            raise
        finally:
            found = tuple(hit.record_id for hit in hits)
            emit(MemorySearchFinished(**about, success=why is None, result_count=len(found), error=why, records=found))
        return hits

    # ---- what a turn is given ---------------------------------------------------------------------------------

    def is_waiting(self, at: Boundary) -> bool:
        """Return whether the turn has not had its recall yet."""
        is_due = at is Boundary.ROUND and self._recalled_in != self._agent.run_generation
        return is_due and self.is_on and self.config.auto_recall_enabled

    async def drain(self, at: Boundary) -> list[tuple[EntryKind, Message]]:
        """Look for memories that have to do with the question, and send them after it until the turn ends."""
        self._recalled_in = self._agent.run_generation
        self._agent.transcript.aside = self.recalled = await self._recall()
        return []

    async def _recall(self) -> Message | None:
        agent, config = self._agent, self.config
        late = agent.transcript.late(6)
        tasks = [str(task.get("subject", "")) for task in agent.tasks if task.get("status") != "completed"]
        text = query_of([entry.message for entry in late], tasks)
        if not text or not config.auto_recall_limit or not config.auto_recall_char_budget:
            return None
        run_id = late[-1].run_id if late else None
        # What it said itself is in the conversation still, but for what a summary stands for.
        gone = agent.transcript.gone
        query = MemoryQuery(self.owners, text, config.auto_recall_limit, agent.id, gone, RECALL_SECONDS)
        try:
            lines = quoted(await self._search(query, run_id), config.auto_recall_char_budget)
        except StoreError:
            return None
        if not lines:
            return None
        agent.environment.bus.emit(MemoryRecalled(agent_id=agent.id, lines=tuple(lines)))
        return recall_message(lines)

    # ---- what is kept of a turn -------------------------------------------------------------------------------

    async def acknowledge(self) -> None:
        """Begin to keep a turn that has finished. One that was stopped is not kept."""
        agent = self._agent
        agent.transcript.aside = None
        last = agent.transcript.last
        if agent.status == "Finished" and self.is_on and last is not None and last.run_id is not None:
            work = self._ingest(last.run_id, len(agent.transcript), self.owners[0], self._place())
            agent.environment.services[Afterwards].begin(work)

    async def requeue(self) -> None:
        """Drop the recall of a turn that has failed."""
        self._agent.transcript.aside = None

    async def _ingest(self, run_id: str, revision: int, owner: str, place: dict[str, Any]) -> None:
        """Keep what was said in a turn. A turn that is kept already, or was forgotten, is not kept again."""
        agent = self._agent
        store, bus = agent.environment.store, agent.environment.bus
        about: dict[str, Any] = {"agent_id": agent.id, "run_id": run_id, "source_revision": revision}
        bus.emit(MemoryIngestStarted(**about))
        try:
            entries = await store.entries_of_run(agent.id, run_id)
            run = await store.latest_run(agent.id)
            if run is not None and run.id == run_id and run.resumes is not None:  # the question is in that turn
                entries = [*await store.entries_of_run(agent.id, run.resumes), *entries]
            text = episode_of(entries, getattr(bus.audit, "redact", ()))
            made = MemoryRecord(
                record_id=f"episode:{agent.id}:{run_id}",
                agent_id=owner,
                kind="episode",
                content=text,
                source_revision=revision,
                created_at=time.time(),
                source="auto_ingest",
                made_by=agent.id,
                run_id=run_id,
                **place,
            )
            stored = await store.add_memories([made]) if text else 0
            await store.save_memory_cursor(agent.id, revision)
        except Exception as error:  # noqa: BLE001  # the turn has ended: all that can be done is to record it
            bus.emit(MemoryIngestFinished(**about, success=False, stored_records=0, error=str(error) or None))
            return
        bus.emit(MemoryIngestFinished(**about, success=True, stored_records=stored))
