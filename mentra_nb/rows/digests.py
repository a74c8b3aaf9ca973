"""The digests under which answers are stored: of all that decides an answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from mentra_nb.content import Image, Sendable
from mentra_nb.rows.asking import MAX_OUTPUT, Asker
from mentra_nb.rows.pictures import digest as content_digest
from mentra_nb.rows.pictures import held
from mentra_nb.rows.template import as_text


def prompt_digest(prompt: str) -> str:
    """Return the digest under which the answers to a prompt are stored, before values are filled in."""
    return hashlib.sha256(prompt.encode("utf-8", "replace")).hexdigest()


def digests_of(asker: Asker) -> Callable[[tuple[Any, ...]], str]:
    """Return what makes the digest of a row: of all that decides its answer.

    That is the provider, the model, the system prompt, the prompt, examples, the schema, the options, and the values
    of the columns that the prompt names.
    """
    request = asker.request("")
    said = [[message.role.value, *_said(message)] for message in request.messages]
    decides = [asker.name, asker.template.text, request.system, said, asker.shape.schema, MAX_OUTPUT]
    begun = hashlib.sha256(json.dumps(decides, sort_keys=True).encode())

    def digest(values: tuple[Any, ...]) -> str:
        made = begun.copy()
        made.update(json.dumps(_valued(asker, values)).encode())
        return made.hexdigest()

    return digest


def _said(message: Sendable) -> list[str]:
    """Return what decides of a message: its text, and digests of its pictures."""
    images = [block for block in message.content if isinstance(block, Image)]
    return [message.text(), *(hashlib.sha256(str(image.data or image.url).encode()).hexdigest() for image in images)]


def _valued(asker: Asker, values: tuple[Any, ...]) -> list[Any]:
    """Return what decides of the values of a row: their text, and digests of pictures and files."""
    template = asker.template
    shown = held(template, dict(zip(template.columns, values, strict=True)))
    columns = {template.names[name] for name in shown}
    texts = ["" if name in columns else as_text(each) for name, each in zip(template.columns, values, strict=True)]
    return [*texts, {name: content_digest(each, asker.policy) for name, each in shown.items()}] if shown else texts
