"""The exchanges of a stored conversation: each question with all that followed it until the next one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mentra_nb.content import Role, Text
from mentra_nb.store.records import Entry

if TYPE_CHECKING:
    import pandas as pd

    from mentra_nb.store.protocols import RuntimeStore

AROUND = 80
"""Characters shown before and after what was searched for."""
COLUMNS = ("ts", "conversation", "question", "found", "prompt", "answer", "session_id", "run_id")


@dataclass
class Exchange:
    """A question and its answer. `entries` are all messages of it, also calls, results, and what was said meanwhile."""

    entries: list[Entry] = field(default_factory=list)

    @property
    def prompt(self) -> str:
        """What was asked, without what was handed over with it."""
        first = self.entries[0].message
        return next((block.text for block in first.content if isinstance(block, Text)), "")

    @property
    def answer(self) -> str:
        """The last text of the model."""
        said = (e.message.text() for e in reversed(self.entries) if e.message.role is Role.ASSISTANT)
        return next(filter(None, said), "")

    @property
    def run_id(self) -> str | None:
        """The turn that began it."""
        return self.entries[0].run_id


def exchanges(path: Iterable[Entry]) -> list[Exchange]:
    """Return the exchanges of a path, oldest first. What was said during a turn is part of its exchange."""
    found: list[Exchange] = []
    turn: str | None = None
    for entry in path:
        if not found or (entry.kind == "user_turn" and entry.run_id != turn):
            found.append(Exchange())
        found[-1].entries.append(entry)
        turn = entry.run_id
    return found


def search(text: str | None = None) -> pd.DataFrame:
    """Return the questions and answers of this project that contain a text, whatever its case; by default all.

    Columns: ts (datetime, UTC), conversation, question, found (str, what surrounds the text), prompt, answer (str),
    session_id, run_id. The state store is read, which keeps conversations whole.
    """
    import pandas as pd

    from mentra_nb import paths
    from mentra_nb.chat.engine import engine

    used = engine()
    rows = used.call(_rows, used.runtime.store, str(paths.project_root()), (text or "").casefold())
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).sort_values("ts", ignore_index=True)
    frame.attrs["mentra_nb"] = True
    return frame.assign(ts=pd.to_datetime(frame.ts.astype("float64"), unit="s", utc=True).dt.as_unit("us"))


async def _rows(store: RuntimeStore, project: str, wanted: str) -> list[tuple[Any, ...]]:
    from mentra_nb.chat.earlier import title

    rows: list[tuple[Any, ...]] = []
    for conversation in await store.list_conversations(project):
        stored = await store.load_conversation(conversation.session.id)
        path = await store.load_path(stored.agent.id, stored.agent.leaf) if stored is not None else []
        for each in exchanges(path):
            prompt, answer = each.prompt, each.answer
            if wanted in prompt.casefold() or wanted in answer.casefold():
                shown = around(prompt, ""), around(answer, wanted if wanted in answer.casefold() else "")
                about = each.entries[0].created_at, title(conversation)
                rows.append((*about, *shown, prompt, answer, conversation.session.id, each.run_id))
    return rows


def around(text: str, wanted: str) -> str:
    """Return the part of a text around the first place of `wanted`, in one line; without one, its beginning."""
    line = " ".join(text.split())
    at = max(line.casefold().find(" ".join(wanted.split())), 0)
    begin, end = max(at - AROUND, 0), at + len(wanted) + AROUND
    return f"{'…' if begin else ''}{line[begin:end]}{'…' if end < len(line) else ''}"
