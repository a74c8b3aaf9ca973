"""Reasoning between `<think>` tags, as servers without a member for it send it."""

from __future__ import annotations

from mentra_nb.providers.base import BlockKind


class ThinkTags:
    """Splits content that begins with `<think>` into reasoning and text; the tags may come in any pieces."""

    OPEN, CLOSE = "<think>", "</think>"

    def __init__(self) -> None:
        self._state = "undecided"
        self._at_edge = False
        """Just after a tag, where line breaks are dropped."""
        self._held = ""
        self.is_over: bool = False
        """Whether all that comes is text, to be taken as it is."""

    def off(self) -> None:
        """Treat tags as text from here on, as the server reports reasoning separately."""
        if self._state == "undecided":
            self._state = "outside"

    def split(self, text: str) -> list[tuple[BlockKind, str]]:
        """Return the next piece as `(kind, text)` pairs, without what may be the beginning of a tag."""
        text, self._held = self._held + text, ""
        if self._state == "undecided":
            start = text.lstrip()
            if len(start) < len(self.OPEN) and self.OPEN.startswith(start):
                self._held = text
                return []
            self._state = "outside"
            if start.startswith(self.OPEN):
                text = start.removeprefix(self.OPEN)
                self._state, self._at_edge = "inside", True
        if self._at_edge:
            text = text.lstrip("\n")
            self._at_edge = not text
        if self._state == "outside":
            self.is_over = not self._at_edge
            return [("text", text)] if text else []
        thought, tag, rest = text.partition(self.CLOSE)
        if tag:
            rest = rest.lstrip("\n")
            self._state, self._at_edge = "outside", not rest
        else:
            kept = next((n for n in range(len(self.CLOSE) - 1, 0, -1) if text.endswith(self.CLOSE[:n])), 0)
            thought, self._held = text[: len(text) - kept], text[len(text) - kept :]
        pieces: list[tuple[BlockKind, str]] = [("thinking", thought), ("text", rest)]
        return [(kind, piece) for kind, piece in pieces if piece]

    def flush(self) -> list[tuple[BlockKind, str]]:
        """Return the text that `split` held back."""
        held, self._held = self._held, ""
        kind: BlockKind = "thinking" if self._state == "inside" else "text"
        return [(kind, held)] if held else []
