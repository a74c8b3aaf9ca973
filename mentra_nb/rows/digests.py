"""The digests under which answers are stored: of all that decides an answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from mentra_nb.rows.asking import MAX_OUTPUT, Asker
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
    said = [[message.role.value, message.text()] for message in request.messages]
    decides = [asker.name, asker.template.text, request.system, said, asker.shape.schema, MAX_OUTPUT]
    begun = hashlib.sha256(json.dumps(decides, sort_keys=True).encode())

    def digest(values: tuple[Any, ...]) -> str:
        made = begun.copy()
        made.update(json.dumps([as_text(value) for value in values]).encode())
        return made.hexdigest()

    return digest
