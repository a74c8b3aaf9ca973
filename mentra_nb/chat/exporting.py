"""A conversation as a file: Markdown to read, a notebook with what the agent ran as cells, or a message a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mentra_nb.chat.exchanges import Exchange, exchanges
from mentra_nb.content import Image, Message, Role, Text, ToolUse
from mentra_nb.errors import ConfigurationError, OperationDenied
from mentra_nb.ids import uuid7
from mentra_nb.page.escaping import visible_code
from mentra_nb.page.inert import inert
from mentra_nb.page.render import fenced
from mentra_nb.secrets.mask import mask_secrets

if TYPE_CHECKING:
    from mentra_nb.chat.chat import Chat
    from mentra_nb.store.records import Entry, SessionRecord

KINDS = ("md", "ipynb", "jsonl")
_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


class _Part(NamedTuple):
    """A piece of an exchange: text to read, or Python that ran with what it printed."""

    text: str
    code: str | None = None


def export_conversation(chat: Chat, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a conversation to a file, as the next turn would send it, without keys and passwords.

    Args:
        chat: The conversation.
        path: Ends in `.md`, `.ipynb` or `.jsonl`.
        overwrite: Replace a file that is there.

    Returns:
        The absolute path that was written.

    Raises:
        OperationDenied: the file is there, or nothing was asked yet.
        ConfigurationError: the ending is another, or the file cannot be written.
    """
    target = Path(path).expanduser().resolve()
    kind = target.suffix.removeprefix(".")
    if kind not in KINDS:
        raise ConfigurationError(f"an export ends in .md, .ipynb or .jsonl, not '{target.name}'")
    used = chat._engine
    stored = used.call(used.runtime.store.load_conversation, chat.id)
    entries = used.call(used.runtime.store.load_path, stored.agent.id, stored.agent.leaf) if stored is not None else []
    if stored is None or stored.session is None or not entries:
        raise OperationDenied("nothing was asked here yet, so there is nothing to export")
    if kind == "jsonl":
        text = "".join(f"{_json(_line(stored.session, entry))}\n" for entry in entries)
    else:
        found = exchanges(entries)
        text = _markdown(stored.session, found) if kind == "md" else f"{_json(_notebook(found), indent=1)}\n"
    _write(target, text, overwrite=overwrite)
    return target


def _write(target: Path, text: str, *, overwrite: bool) -> None:
    """Write a file for its user only, whole or not at all."""
    new = target.with_name(f".{target.name}-{uuid7()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        new.touch(mode=0o600)
        new.write_text(text, encoding="utf-8", newline="\n")
        if overwrite:
            new.replace(target)
        else:
            target.hardlink_to(new)
    except FileExistsError:
        raise OperationDenied(f"{target} is there already: name another file, or add --overwrite") from None
    except OSError as error:
        raise ConfigurationError(f"{target} cannot be written: {error}") from error
    finally:
        new.unlink(missing_ok=True)


def _json(value: Any, **how: Any) -> str:
    return json.dumps(_masked(value), ensure_ascii=False, **how)


def _masked(value: Any) -> Any:
    """Return a JSON value without the secrets in its texts."""
    match value:
        case str():
            return mask_secrets(value)
        case dict():
            return {key: _masked(each) for key, each in value.items()}
        case list() | tuple():
            return [_masked(each) for each in value]
    return value


def _line(session: SessionRecord, entry: Entry) -> dict[str, Any]:
    return {
        "ts": datetime.fromtimestamp(entry.created_at, UTC).isoformat(),
        "role": str(entry.message.role),
        "text": entry.message.text(),
        "kind": entry.kind,
        "content": [block.model_dump(mode="json") for block in entry.message.content],
        "session_id": session.id,
        "run_id": entry.run_id,
        "entry_id": entry.id,
    }


# ---- to read ----------------------------------------------------------------------------------------------------


def _markdown(session: SessionRecord, found: list[Exchange]) -> str:
    title = session.given_name or "Conversation"
    parts = [f"# {inert(title)}", f"{session.model}, {datetime.fromtimestamp(session.created_at):%Y-%m-%d %H:%M}"]
    for exchange in found:
        for part in _parts(exchange):
            if part.code is not None:
                parts.append(fenced(mask_secrets(part.code), "python"))
            if part.text:
                parts.append(part.text)
    return "\n\n".join(parts) + "\n"


def _notebook(found: list[Exchange]) -> dict[str, Any]:
    """Return a notebook: questions and answers as text, the Python that ran as cells with its output."""
    parts = [part for exchange in found for part in _parts(exchange)]
    cells = [_cell(number, part) for number, part in enumerate(parts)]
    metadata = {"kernelspec": _KERNEL, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def _cell(number: int, part: _Part) -> dict[str, Any]:
    about: dict[str, Any] = {"id": f"part-{number}", "metadata": {}}
    if part.code is None:
        return {**about, "cell_type": "markdown", "source": part.text}
    return {**about, "cell_type": "code", "source": part.code, "execution_count": None, "outputs": _outputs(part.text)}


def _outputs(text: str) -> list[dict[str, Any]]:
    return [{"output_type": "stream", "name": "stdout", "text": text}] if text else []


def _parts(exchange: Exchange) -> Iterator[_Part]:
    """Yield what is shown of an exchange, in order. Text is safe to show as Markdown, and without secrets."""
    results = {result.tool_use_id: result for e in exchange.entries for result in e.message.tool_results()}
    for entry in exchange.entries:
        said = _said(entry.message)
        if said and entry.message.role is Role.USER:
            yield _Part("\n".join(f"> {line}".rstrip() for line in said.split("\n")))
        elif said:
            yield _Part(said)
        for call in entry.message.tool_uses():
            result = results.get(call.id)
            yield _call(call, mask_secrets(result.display()).rstrip("\n") if result is not None else "")


def _call(call: ToolUse, result: str) -> _Part:
    code = call.input.get("code") if call.name == "python" else None
    if isinstance(code, str):
        return _Part(result, visible_code(code))
    given = json.dumps(_masked(call.input), ensure_ascii=False, indent=1)
    command = call.input.get("command") if call.name == "shell" else None
    asked = fenced(mask_secrets(command), "sh") if isinstance(command, str) else fenced(given, "json")
    name = inert(call.name.replace("`", ""))
    return _Part("\n\n".join(filter(None, (f"**{name}**", asked, fenced(result) if result else ""))))


def _said(message: Message) -> str:
    """Return the texts of a message as Markdown, with a word for each picture."""
    texts = [block.text for block in message.content if isinstance(block, Text)]
    pictures = ["(a picture)" for block in message.content if isinstance(block, Image)]
    return "\n\n".join(filter(None, (*(inert(mask_secrets(text)).strip("\n") for text in texts), *pictures)))
