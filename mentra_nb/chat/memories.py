"""What is remembered, for a person: a table of it, and how it is pinned and forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from mentra_nb import paths
from mentra_nb.arguments import check_text
from mentra_nb.background.afterwards import Afterwards
from mentra_nb.chat.engine import engine
from mentra_nb.errors import ConfigurationError, OperationDenied
from mentra_nb.memory.config import GLOBAL, project_owner

if TYPE_CHECKING:
    import pandas as pd

    from mentra_nb.store.records import MemoryRecord

COLUMNS = ("text", "kind", "pinned", "scope", "conversation", "cell_id", "source", "created_at", "id")
WHY_EMPTY = (
    'Nothing is remembered in this project. %config Mentra.memory = "project" makes its conversations remember '
    "each other's turns."
)


def memories() -> pd.DataFrame:
    """Return what is remembered in this project and globally, the newest first.

    Columns: text (str), kind (`episode`: what was said in a turn, `fact`: pinned, `summary`), pinned (bool), scope
    (`agent`: one conversation, `project`, `global`), conversation (str, its name or id), cell_id (str or `None`),
    source (`auto_ingest`: kept of a turn, `manual_pin`, `auto_compaction`), created_at (datetime, UTC), id (str).

    Example:
        >>> len(mn.memories())
        0
    """
    import pandas as pd

    from mentra_nb.record.empty import or_why

    found, names = engine().call(_found)
    rows = [
        {
            "text": each.content,
            "kind": each.kind,
            "pinned": each.pinned,
            "scope": _scope_of(each),
            "conversation": names.get(each.session_id or "", each.session_id or ""),
            "cell_id": each.cell_id,
            "source": each.source,
            "created_at": each.created_at,
            "id": each.record_id,
        }
        for each in found
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame.attrs["mentra_nb"] = True
    frame["created_at"] = pd.to_datetime(frame["created_at"], unit="s", utc=True).dt.as_unit("us")
    return or_why(frame, WHY_EMPTY)


def pin(memory: str | int, *, scope: Literal["agent", "project", "global"] | None = None) -> str:
    """Pin a memory, so that it comes before others, and return its text.

    Args:
        memory: Its number in `memories()` counted from 1, its id, or at least four characters of the end of it.
        scope: Also moves it: `project` for all conversations of this project, `global` for all projects, `agent` for
            the conversation that it comes from.

    Raises:
        OperationDenied: There is no such memory, or more than one, or it comes from no conversation.

    Example:
        >>> mn.pin(1)
        Traceback (most recent call last):
        ...
        mentra_nb.errors.OperationDenied: there is no memory '1': mn.memories() lists them
    """
    if scope not in (None, "agent", "project", "global"):
        raise ConfigurationError(f"a scope is 'agent', 'project' or 'global', not {scope!r}")
    found, store = _named(memory, "mn.pin(1)"), engine().runtime.store
    owners = {None: found.agent_id, "project": project_owner(_project()), "global": GLOBAL, "agent": found.made_by}
    if (owner := owners[scope]) is None:
        raise OperationDenied("that memory comes from no conversation, so it cannot be moved to one")
    made = found.model_copy(update={"pinned": True, "agent_id": owner})

    async def change() -> None:
        await store.save_memories([made])
        if owner != found.agent_id:
            await store.delete_memories(found.agent_id, [found.record_id])

    engine().call(change)
    return found.content


def forget(memory: str | int) -> str:
    """Erase a memory for good, and return its text. The turn that it comes from is not remembered again.

    Args:
        memory: As for `pin`.

    Raises:
        OperationDenied: There is no such memory, or more than one.

    Example:
        >>> mn.forget("fact-of-march")
        Traceback (most recent call last):
        ...
        mentra_nb.errors.OperationDenied: there is no memory 'fact-of-march': mn.memories() lists them
    """
    found = _named(memory, "mn.forget(1)")
    engine().call(engine().runtime.store.forget_memories, found.agent_id, [found.record_id])
    return found.content


def _project() -> str:
    return str(paths.project_root())


def _scope_of(memory: MemoryRecord) -> str:
    if memory.agent_id == GLOBAL:
        return "global"
    return "project" if memory.agent_id.startswith(project_owner("")) else "agent"


async def _found() -> tuple[list[MemoryRecord], dict[str, str]]:
    """Return what is remembered in this project, and the names of its sessions by id."""
    runtime, project = engine().runtime, _project()
    await runtime.app_context(Afterwards).finish()
    sessions = [session for session in await runtime.store.list_sessions() if session.project == project]
    owners = [GLOBAL, project_owner(project), *(session.agent_id for session in sessions)]
    return await runtime.store.list_memories(owners), {each.id: each.given_name or each.id for each in sessions}


def _named(said: str | int, how: str) -> MemoryRecord:
    """Return the memory of a number, an id or its end. Raises `OperationDenied`."""
    if not isinstance(said, int):
        check_text(how, memory=said)
    known: Sequence[MemoryRecord] = engine().call(_found)[0]
    text = str(said).strip()
    if text.isdecimal() and len(text) < 6 and 0 < int(text) <= len(known):
        return known[int(text) - 1]
    found = [each for each in known if each.record_id == text]
    if not found and len(text) >= 4:
        found = [each for each in known if each.record_id.endswith(text)]
    if len(found) == 1:
        return found[0]
    if found:
        raise OperationDenied(f"{len(found)} memories fit '{text}': take the number in mn.memories(), counted from 1")
    raise OperationDenied(f"there is no memory '{text}': mn.memories() lists them")
