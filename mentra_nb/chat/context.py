"""What fills a model's context window with the next request of a conversation."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

from mentra_nb.agent.config import AgentConfig
from mentra_nb.chat.models import choose
from mentra_nb.chat.preview import entries_of, head_of
from mentra_nb.compaction.entry import KIND, sent_of
from mentra_nb.compaction.facts import files_of
from mentra_nb.compaction.tokens import of_message, of_text, of_tools, room_in
from mentra_nb.compaction.window import window_of
from mentra_nb.content import Message, Role

if TYPE_CHECKING:
    import pandas as pd

    from mentra_nb.chat.chat import Chat
    from mentra_nb.store.records import Entry

FREE, FOR_ANSWER = "free", "kept free for the answer"


def context_use(chat: Chat) -> pd.DataFrame:
    """Return a row for each part of the next request: its tokens, estimated, and its share of the window in percent.

    Memories are those that the latest turn in this process was given, as the next question decides which come then.
    Where the window is not known there is neither a share nor what is free. May ask the provider for the window.
    """
    import pandas as pd

    used = chat._engine
    system, tools = head_of(used, chat, (), plan=False)
    parts = Counter({"system prompt": of_text(system), "tools": of_tools(tools)})
    parts.update(parts_of(entries_of(chat)))
    parts["memories"] = _recalled_by(chat)
    choice = choose(chat.model, used.settings, os.environ, registered=used.registered())
    window = used.settings.context_window
    if window is None and choice.model is not None:
        model = used.call(used.model, f"{choice.provider}/{choice.model}")
        window = used.call(lambda: window_of(used.runtime.provider(model.provider), model.id))
    rows = {name: tokens for name, tokens in parts.items() if tokens}
    if window is not None:
        room = room_in(window, AgentConfig().max_output_tokens)
        rows |= {FOR_ANSWER: window - room.usable, FREE: max(0, room.usable - parts.total())}
    frame = pd.DataFrame({"part": [*rows], "tokens": [*rows.values()]}).astype({"part": "string", "tokens": "int64"})
    shares = [None if window is None else round(100 * tokens / window, 1) for tokens in rows.values()]
    frame["share"] = pd.array(shares, dtype="Float64")
    frame.attrs["mentra_nb"] = True
    return frame


def _recalled_by(chat: Chat) -> int:
    """Return the tokens of what the latest turn was given of memory."""
    from mentra_nb.memory.keeper import AgentMemory

    memory = chat._session.agent.companions.get(AgentMemory) if chat._session is not None else None
    return of_message(memory.recalled) if memory is not None and memory.recalled is not None else 0


def parts_of(entries: list[Entry]) -> Counter[str]:
    """Return the tokens of what is sent of a conversation, by what it is."""
    gone, _ = sent_of(entries)
    named = {use.id for entry in entries for use in entry.message.tool_uses() if files_of([Message.assistant([use])])}
    parts: Counter[str] = Counter()
    for entry in entries[gone:]:
        message = entry.message
        if results := message.tool_results():
            for result in results:
                part = "files" if result.tool_use_id in named else "other results"
                parts[part] += of_message(Message.user([result]))
        elif entry.kind == KIND:
            parts["summary"] += of_message(message)
        else:
            parts["answers and calls" if message.role is Role.ASSISTANT else "your messages"] += of_message(message)
    return parts
