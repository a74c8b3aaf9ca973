"""The documents for users: their snippets, tables, links and pictures."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = {
    str(file.relative_to(ROOT)): file.read_text(encoding="utf-8")
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
"""The text of each, by its path in the repository."""

_FENCE = re.compile(r"^(?:<!-- (?P<mark>\w+) -->\n)?```\w*\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?P<picture>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Snippet:
    """A fenced block of a document. `mark` says how it is checked."""

    document: str
    mark: str | None
    body: str


@dataclass(frozen=True)
class Link:
    """A link or picture of a document. `target` is relative to the document, or a whole address."""

    document: str
    is_picture: bool
    text: str
    target: str


def snippets() -> list[Snippet]:
    """Return the snippets of all documents, in order."""
    return [
        Snippet(name, found["mark"], found["body"])
        for name, text in DOCUMENTS.items()
        for found in _FENCE.finditer(text)
    ]


def links() -> list[Link]:
    """Return the links and pictures of all documents."""
    return [
        Link(name, bool(found["picture"]), found["text"], found["target"])
        for name, text in DOCUMENTS.items()
        for found in _LINK.finditer(_FENCE.sub("", text))
    ]


def anchors(text: str) -> set[str]:
    """Return the names by which the headings of a Markdown text can be linked to."""
    titles = [re.sub(r"[^\w\- ]", "", title.lower()) for title in _HEADING.findall(_FENCE.sub("", text))]
    return {title.strip().replace(" ", "-") for title in titles}


def table(document: str, first: str) -> list[list[str]]:
    """Return the rows, without the header, of the table of a document whose first column is named `first`."""
    lines = iter(DOCUMENTS[document].splitlines())
    for line in lines:
        if line.startswith(f"| {first} |"):
            next(lines)
            rows = []
            for row in lines:
                if not row.startswith("|"):
                    break
                rows.append([cell.strip() for cell in row.strip("|").split("|")])
            return rows
    raise LookupError(f"{document} has no table that begins with {first!r}")
