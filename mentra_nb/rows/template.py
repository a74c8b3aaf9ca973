"""The prompt of a map: text with the names of columns in braces."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mentra_nb.content import Image, Text
from mentra_nb.errors import ConfigurationError

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class Template:
    """A prompt in which `{name}` stands for the value of the column of exactly that name, and `{{` for a brace.

    `{@name}` stands for the content of the file whose path is that value.

    A name is only looked up: it has no attributes, indexes, conversions or formats. What a value contains is never
    read as a template.
    """

    def __init__(self, text: str) -> None:
        """Read the text. Raises `ConfigurationError` for a brace that neither encloses a name nor is doubled."""
        self.text = text
        self._texts: list[str] = [""]
        """The text before the first column, between columns, and after the last one."""
        self._order: list[str] = []
        at = 0
        for found in _PART.finditer(text):
            self._texts[-1] += text[at : found.start()]
            at = found.end()
            if (name := found[1]) is not None:
                self._order.append(name)
                self._texts.append("")
            elif found[0] in ("{{", "}}"):
                self._texts[-1] += found[0][0]
            else:
                raise ConfigurationError(
                    f"the prompt has a single {found[0]} at character {found.start() + 1}: "
                    f"write {found[0] * 2} for the brace itself"
                )
        self._texts[-1] += text[at:]
        self.files: frozenset[str] = frozenset(name for name in self._order if name.startswith("@"))
        """The names in braces that stand for the content of a file."""
        self.names: dict[str, str] = {name: name[name in self.files :] for name in self._order}
        """The column of each name in braces."""
        self.columns: tuple[str, ...] = tuple(dict.fromkeys(self.names.values()))
        """The names of the columns, in the order in which they first occur."""

    def check(self, columns: Sequence[str]) -> None:
        """Raise `ConfigurationError` if the prompt names no column, or one that is not among these."""
        known = ", ".join(columns[:20]) + (", …" if len(columns) > 20 else "")
        if not self.columns:
            raise ConfigurationError(f"the prompt names no column: write {{{columns[0]}}} where its value belongs")
        for name in self.columns:
            if name not in columns:
                raise ConfigurationError(
                    f"the prompt names a column '{name}' that is not there: there are {known}; write {{{{ for a brace"
                )

    def fill(self, values: Mapping[str, Any]) -> str:
        """Return the prompt with the text of these values; a value that is missing becomes empty text."""
        parts = [self._texts[0]]
        for name, following in zip(self._order, self._texts[1:], strict=True):
            parts += (as_text(values[self.names[name]]), following)
        return "".join(parts)

    def blocks(self, values: Mapping[str, Any], held: Mapping[str, Image | Text]) -> list[Image | Text]:
        """Return the prompt with the text of these values, but with what is held where its name is in braces."""
        parts: list[Image | Text] = [Text(text=self._texts[0])]
        for name, following in zip(self._order, self._texts[1:], strict=True):
            value = held[name] if name in held else Text(text=as_text(values[self.names[name]]))
            for each in (value, Text(text=following)):
                if isinstance(each, Text) and isinstance(parts[-1], Text):
                    parts[-1] = Text(text=parts[-1].text + each.text)
                else:
                    parts.append(each)
        return [each for each in parts if isinstance(each, Image) or each.text]


def as_text(value: Any) -> str:
    """Return a value as it stands in a prompt. `None`, NaN and NaT become empty text."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and value != value):
        return ""
    text = str(value)
    return "" if text in ("NaT", "<NA>") else text
