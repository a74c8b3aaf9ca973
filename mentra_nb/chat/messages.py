"""The stored messages of a conversation as a DataFrame."""

from __future__ import annotations

import pandas as pd
from pydantic import TypeAdapter

from mentra_nb.arguments import check_text
from mentra_nb.chat.api import conversation
from mentra_nb.chat.engine import engine
from mentra_nb.content import ContentBlock
from mentra_nb.errors import ConfigurationError
from mentra_nb.record.read.columns import described
from mentra_nb.store.records import Entry, SessionRecord

_PARTS = TypeAdapter(tuple[ContentBlock, ...])


@described
def messages(session: str | None = None) -> pd.DataFrame:
    """Return the messages of a session, by id or name, as its next turn sends them; by default of this notebook's.

    They are read from the state store, which keeps conversations whole, not from the record.

    Raises:
        ConfigurationError: there is no such session.

    Example:
        >>> mn.messages("sales")[["role", "text"]].head(2)
                role                                text
        0       user      What was the revenue in March?
        1  assistant  Revenue in March was 2400 dollars.
    """
    check_text("mn.messages('sales')", {"session": session})
    ours, store = session is None or session == "this", engine().runtime.store
    wanted = conversation().id if session is None or ours else session

    async def read() -> tuple[SessionRecord, list[Entry]]:
        stored = await store.load_conversation(wanted)
        if stored is None or stored.session is None:
            missing = f"there is no session {wanted!r}" if not ours else "this notebook has no conversation yet"
            raise ConfigurationError(f"{missing}: name a session, mn.sessions() lists them")
        return stored.session, await store.load_path(stored.agent.id, stored.agent.leaf)

    of, entries = engine().call(read)
    rows = [
        {
            "ts": entry.created_at,
            "role": str(entry.message.role),
            "text": entry.message.text(),
            "kind": entry.kind,
            "parts": _PARTS.dump_json(entry.message.content).decode(),
            "session_id": of.id,
            "run_id": entry.run_id,
            "entry_id": entry.id,
        }
        for entry in entries
    ]
    names = ["ts", "role", "text", "kind", "parts", "session_id", "run_id", "entry_id"]
    texts = dict.fromkeys(names[1:], "string") | {"role": "category", "kind": "category"}
    frame = pd.DataFrame(rows, columns=names).astype(texts)
    frame.attrs["mentra_nb"] = True
    return frame.assign(ts=pd.to_datetime(frame.ts.astype("float64"), unit="s", utc=True).dt.as_unit("us"))
