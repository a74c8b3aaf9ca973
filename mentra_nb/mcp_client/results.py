"""How the names, descriptions and results of a server look to a model, and its errors to anybody."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mentra_nb.content import Image
from mentra_nb.mcp_client.bounds import MAX_PICTURES
from mentra_nb.tools.schema import ToolError
from mentra_nb.tools.tool import ToolOutput

if TYPE_CHECKING:
    from mcp.types import CallToolResult, ContentBlock

LONGEST_NAME = 64
"""Characters of a tool's name that every provider takes."""
LONGEST_DESCRIPTION = 4096
"""Characters of a description that a model is shown."""
PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
"""The media types of pictures that models are shown."""
CODES = {-32601: "it has no such method or tool", -32602: "it did not take the arguments"}
"""What the codes of JSON-RPC say of a call."""


def tool_name(server: str, tool: str) -> str:
    """Return the name by which a model calls a server's tool: `mcp__SERVER__TOOL`.

    What a provider does not take is replaced or cut, and then the name ends in eight digits of its digest.
    """
    name = f"mcp__{server}__{tool}"
    clean = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    if clean == name and len(name) <= LONGEST_NAME:
        return name
    return f"{clean[: LONGEST_NAME - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def printable(text: str, longest: int = LONGEST_DESCRIPTION) -> str:
    """Return a server's text without hidden characters, cut to a length."""
    shown = "".join(character if character.isprintable() or character == "\n" else "\ufffd" for character in text)
    return shown if len(shown) <= longest else f"{shown[:longest]}…"


def output_of(result: CallToolResult) -> ToolOutput:
    """Return a result for the model. Raises `ToolError` with its text if the server says that the call failed."""
    texts, images = read_parts(result.content)
    text = "\n".join(texts)
    if result.is_error:
        raise ToolError(text or "the tool failed and said nothing")
    if not texts and not images and result.structured_content is not None:
        return ToolOutput(result.structured_content)
    return ToolOutput(text or ("" if images else "(no output)"), images=tuple(images))


def read_parts(parts: Iterable[ContentBlock]) -> tuple[list[str], list[Image]]:
    """Return the texts and the pictures of a result. What a model cannot be shown is named in the texts."""
    texts: list[str] = []
    images: list[Image] = []
    for part in parts:
        if part.type == "text":
            texts.append(part.text)
        elif part.type == "image" and len(images) < MAX_PICTURES and _can_be_shown(part.mime_type, part.data):
            images.append(Image(media_type=part.mime_type, data=part.data))
        elif part.type == "resource":
            texts.append(contents(part.resource))
        elif part.type == "resource_link":
            texts.append(f"[resource {part.name}: {part.uri}]")
        else:
            texts.append(f"[{part.type} of type {part.mime_type}, not shown]")
    return texts, images


def _can_be_shown(media_type: str, data: str) -> bool:
    try:
        return media_type in PICTURES and bool(base64.b64decode(data, validate=True))
    except ValueError:
        return False


def contents(resource: Any) -> str:
    """Return the text of a resource, or what it is if it is not text."""
    text = getattr(resource, "text", None)
    return text if text is not None else f"[resource {resource.uri}, {resource.mime_type or 'not text'}, not shown]"
