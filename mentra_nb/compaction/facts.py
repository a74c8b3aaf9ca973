"""What is taken from messages as it is, without a model: files, denials, and the words of the user."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mentra_nb.compaction.entry import KIND, NOTHING, Carried, carried_of, keeps_of
from mentra_nb.compaction.summary import Summary, lines_of
from mentra_nb.compaction.tokens import of_text
from mentra_nb.content import Image, Message, ToolUse
from mentra_nb.store.records import Entry

PATHS = ("path", "file_path", "from", "to", "notebook_path")
"""The arguments of calls that name a file."""
PICTURES = 4
"""Pictures of the user's newest message that are sent with a summary."""
DENIED = ("Tool execution denied: ", "Blocked by pre-execution hook: ")
"""How the result of a call begins that was not allowed."""
LONGEST_LINE = 400
"""Characters of a call or a reason that are kept."""


def carried(entries: Sequence[Entry], before: Carried, summary: Summary | None, usable: int) -> Carried:
    """Return what a summary of entries hands on, each part within its share of the usable tokens.

    Without a `summary`, what a model wrote earlier is handed on.
    """
    messages, said = [entry.message for entry in entries], said_in(entries)
    texts = [*before.words, *(text for message in said if (text := message.text()))]
    words = newest(texts, usable * 15 // 100) or tuple(texts[-1:])
    quotes = quotes_in(summary.instructions, said) if summary is not None else ()
    return Carried(
        files=newest(files_of(messages, before.files), usable * 5 // 100),
        instructions=newest(list(dict.fromkeys([*before.instructions, *quotes])), usable // 10),
        decisions=newest(denials_of(messages, before.decisions), usable * 5 // 100),
        matters=before.matters,
        words=words,
        left_out=before.left_out + len(texts) - len(words),
        written=before.written if summary is None else lines_of(summary, usable // 5),
    )


def files_of(messages: Iterable[Message], before: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the files that calls named, after those of `before`: as first seen, without repeats.

    Example:
        >>> read = ToolUse(id="1", name="read", input={"path": "data/sales.csv"})
        >>> files_of([Message.assistant([read])], ["notes.md"])
        ('notes.md', 'data/sales.csv')
    """
    return tuple(dict.fromkeys([*before, *(path for each in messages for path in _files_in(each))]))


def denials_of(messages: Sequence[Message], before: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the calls that were not allowed, each with the reason in the words in which it was given."""
    calls = {use.id: use for message in messages for use in message.tool_uses()}
    found = [
        f"{_call(calls.get(result.tool_use_id))}: {_line(result.display())}"
        for message in messages
        for result in message.tool_results()
        if result.is_error and result.display().startswith(DENIED)
    ]
    return tuple(dict.fromkeys([*before, *found]))


def said_in(entries: Sequence[Entry]) -> list[Message]:
    """Return the messages of the user, oldest first."""
    return [entry.message for entry in entries if entry.kind == "user_turn"]


def newest_pictures(entries: Sequence[Entry]) -> list[Image]:
    """Return the first pictures of the user's newest message."""
    said = said_in(entries)
    return [block for block in said[-1].content if isinstance(block, Image)][:PICTURES] if said else []


def kept_by_summary(entries: Sequence[Entry]) -> int:
    """Return how many of the entries that are sent are a summary and what it keeps."""
    return 1 + keeps_of(entries[0].message) if entries and entries[0].kind == KIND else 0


def newest(texts: Sequence[str], tokens: int) -> tuple[str, ...]:
    """Return the newest texts that have at most so many tokens together, oldest first.

    Example:
        >>> newest(["an earlier question", "a long question " * 9, "Why?"], 20)
        ('Why?',)
    """
    kept: list[str] = []
    for text in reversed(texts):
        tokens -= of_text(text) + 1
        if tokens < 0:
            break
        kept.insert(0, text)
    return tuple(kept)


def quotes_in(found: Iterable[str], said: Sequence[Message]) -> list[str]:
    """Return the sentences that the user said in exactly these words: a model has found them, and may be wrong."""
    words = "\n".join(" ".join(message.text().split()) for message in said)
    return [quote for each in found if (quote := " ".join(each.split()).strip("\"'")) and quote in words]


def carried_before(entries: Sequence[Entry]) -> Carried:
    """Return what the newest summary among entries hands on."""
    found = next((entry for entry in reversed(entries) if entry.kind == KIND), None)
    return NOTHING if found is None else carried_of(found.message)


def _files_in(message: Message) -> Iterator[str]:
    for use in message.tool_uses():
        yield from _paths(use.input)


def _paths(arguments: Any) -> Iterator[str]:
    """Yield the files that arguments name, also inside lists of operations."""
    if isinstance(arguments, dict):
        for key, value in arguments.items():
            if key in PATHS and isinstance(value, str) and value and "\n" not in value:
                yield value[:LONGEST_LINE]
            elif isinstance(value, list):
                for each in value:
                    yield from _paths(each) if isinstance(each, dict) else ()


def _call(use: ToolUse | None) -> str:
    return "a call" if use is None else _line(f"{use.name} {json.dumps(use.input, ensure_ascii=False, default=str)}")


def _line(text: str) -> str:
    return " ".join(text.split())[:LONGEST_LINE]
