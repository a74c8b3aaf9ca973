"""Untrusted Markdown as Markdown: for files that other programs show, and fetch from, as they like."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from mentra_nb.page.escaping import plain
from mentra_nb.page.render import fenced

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

TRIES = 3
"""How often what escaping has brought to light is escaped as well."""


def inert(markdown: str) -> str:
    """Return Markdown that fetches and runs nothing: images and raw HTML stand as they were typed.

    Text without them is returned as it is. Where they cannot be escaped, all of it becomes a block of code.

    Example:
        >>> from mentra_nb.page.inert import inert
        >>> inert("![a](https://example.com/a.png) <b>")
        '!\\\\[a](https://example.com/a.png) \\\\<b>'
    """
    text = whole = plain(markdown.replace("\r\n", "\n"))
    for _ in range(TRIES):
        lines = text.split("\n")
        active = _active(text)
        if not active:
            return text
        for number in active:
            lines[number] = lines[number].replace("![", "!\\[").replace("<", "\\<")
        text = "\n".join(lines)
    return fenced(whole) if _active(text) else text


def _active(text: str) -> list[int]:
    """Return the lines of blocks with images or raw HTML."""
    found: set[int] = set()
    for token in _parser().parse(text):
        kinds = {child.type for child in token.children or ()}
        if token.type == "html_block" or kinds & {"image", "html_inline"}:
            begin, end = token.map or (0, text.count("\n") + 1)
            found.update(range(begin, end))
    return sorted(number for number in found if number <= text.count("\n"))


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable(["table", "strikethrough"])
