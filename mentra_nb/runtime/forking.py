"""A copy of a stored conversation, to try something else from there."""

from __future__ import annotations

import time
from collections.abc import Collection

from mentra_nb.ids import new_id
from mentra_nb.store.protocols import RuntimeStore
from mentra_nb.store.records import Entry, RunRecord, SessionRecord, StoredConversation


async def fork(
    store: RuntimeStore,
    source: StoredConversation,
    session_id: str,
    name: str | None,
    notebook: str | None,
    without: Collection[str] = (),
) -> SessionRecord:
    """Store a copy of a conversation as it is now, with the turns on its path, and return its session.

    Rules, jobs and branches that were left are not copied. The session is stored last.

    Args:
        store: Where both are.
        source: What is copied. No turn of it may be running.
        session_id: The id of the copy.
        name: Its name, if it gets one.
        notebook: The notebook it belongs to.
        without: Ids of entries that are left out: whole exchanges.
    """
    now, agent_id = time.time(), new_id("agent")
    about = {"id": agent_id, "status": "Idle", "leaf": None, "created_at": now, "updated_at": now}
    await store.create_agent(source.agent.model_copy(update=about))
    leaf = await _copy_path(store, source, agent_id, without)
    if leaf is not None:
        await store.set_leaf(agent_id, leaf)
    record = SessionRecord(
        id=session_id,
        name=name or session_id,
        agent_id=agent_id,
        model=source.agent.model,
        project=source.session.project if source.session is not None else None,
        notebook=notebook,
        created_at=now,
        updated_at=now,
    )
    await store.save_session(record)
    return record


async def _copy_path(
    store: RuntimeStore, source: StoredConversation, agent_id: str, without: Collection[str]
) -> str | None:
    """Copy the path of a conversation, with its turns, to another agent. Returns the last entry of the copy."""
    runs = {run.id: run for run in await store.list_runs(source.agent.id)}
    leaf: str | None = None
    copies: dict[str | None, str] = {}
    """Turn → its copy."""
    path = await store.load_path(source.agent.id, source.agent.leaf)
    for run_id, entries in _by_turn([entry for entry in path if entry.id not in without]):
        run = runs.get(run_id or "") if run_id not in copies else None
        if run is not None:
            copies[run.id] = new_id("run")
        copied = []
        for entry in entries:
            ids = {"id": new_id("entry"), "agent_id": agent_id, "parent_id": leaf, "run_id": copies.get(run_id)}
            copied.append(entry.model_copy(update=ids))
            leaf = copied[-1].id
        if run is None:
            await store.append_entries(copied)
        else:
            await store.start_run(_copy(run, agent_id, copies, copied), entries=copied)
        await _copy_results(store, source.agent.id, copied)
    return leaf


def _by_turn(path: list[Entry]) -> list[tuple[str | None, list[Entry]]]:
    """Return the entries of a path in groups of one turn each."""
    groups: list[tuple[str | None, list[Entry]]] = []
    for entry in path:
        if not groups or groups[-1][0] != entry.run_id:
            groups.append((entry.run_id, []))
        groups[-1][1].append(entry)
    return groups


def _copy(run: RunRecord, agent_id: str, copies: dict[str | None, str], entries: list[Entry]) -> RunRecord:
    """Return the turn in the copy. There it is finished, as its continuation is part of it."""
    return run.model_copy(
        update={
            "id": copies[run.id],
            "agent_id": agent_id,
            "state": "finished",
            "error": None,
            "base": entries[0].parent_id,
            "leaf": entries[-1].id,
            "partial": "",
            "resumes": copies.get(run.resumes),
            "finished_at": run.finished_at or run.started_at,
        }
    )


async def _copy_results(store: RuntimeStore, source_id: str, entries: list[Entry]) -> None:
    """Copy the whole results of which the entries have a part."""
    for entry in entries:
        for result in entry.message.tool_results():
            if (text := await store.load_result(source_id, result.tool_use_id)) is not None:
                await store.keep_result(entry.agent_id, entry.run_id or "", result.tool_use_id, text)
