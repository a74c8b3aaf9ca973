"""What code prints and displays, heard for the model while it appears in the cell as ever."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mentra_nb.content import Image
from mentra_nb.tools.pictures import MAX_IMAGE_BYTES, picture_in

MAX_TEXT = 200_000
"""Characters that are kept of what is printed; of more, the beginning and the end."""
MAX_IMAGES = 4
"""Images that a model gets of one run."""
_IMAGES = ("image/png", "image/jpeg")


class Heard:
    """What was heard: text, and images of figures."""

    def __init__(self) -> None:
        self.images: list[Image] = []
        self._head, self._tail, self._left = "", "", 0

    def add(self, text: str) -> None:
        """Keep printed text."""
        room = MAX_TEXT // 2 - len(self._head)
        self._head += text[: max(room, 0)]
        self._tail += text[max(room, 0) :]
        if len(self._tail) > MAX_TEXT:
            self._left += len(self._tail) - MAX_TEXT // 2
            self._tail = self._tail[-MAX_TEXT // 2 :]

    def add_line(self, text: str) -> None:
        """Keep text that begins on a line of its own."""
        if text:
            self.add(text if not self.text() or self.text().endswith("\n") else f"\n{text}")
            self.add("" if text.endswith("\n") else "\n")

    def add_display(self, data: dict[str, Any]) -> None:
        """Keep what was displayed: an image, else its plain text."""
        for kind in _IMAGES:
            if kind in data:
                self.add_line(self._image(data[kind]))
                return
        text = data.get("text/plain")
        self.add_line(text if isinstance(text, str) else "")

    def _image(self, data: bytes | str) -> str:
        """Keep an image for the model, and return what the text says in its place."""
        try:
            raw = data if isinstance(data, bytes) else base64.b64decode(data)
        except (TypeError, ValueError):
            raw = b""
        picture = picture_in(raw) if len(raw) <= MAX_IMAGE_BYTES else None
        if picture is None or len(self.images) >= MAX_IMAGES:
            return "[a figure, shown in the cell only]"
        self.images.append(picture)
        return f"[figure {len(self.images)}]"

    def text(self) -> str:
        """Return what was printed and displayed, in order."""
        if not self._left:
            return self._head + self._tail
        return f"{self._head}\n[… {self._left} characters left out …]\n{self._tail}"


class _Tee:
    """A stream that is heard as well."""

    def __init__(self, stream: Any, heard: Heard) -> None:
        self._stream, self._heard = stream, heard

    def write(self, text: str) -> int:
        written: int = self._stream.write(text)
        self._heard.add(text)
        return written

    def writelines(self, lines: Any) -> None:
        for text in lines:
            self.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def hearing(shell: Any) -> Iterator[Heard]:
    """Inside, hear what is printed and displayed on this thread and others."""
    heard = Heard()
    streams, publisher = (sys.stdout, sys.stderr), shell.display_pub
    publish, own = publisher.publish, publisher.__dict__.get("publish")

    def publish_heard(data: dict[str, Any], *args: Any, **how: Any) -> Any:
        if not how.get("update"):
            heard.add_display(data)
        return publish(data, *args, **how)

    publisher.publish = publish_heard
    sys.stdout, sys.stderr = _Tee(sys.stdout, heard), _Tee(sys.stderr, heard)
    try:
        yield heard
    finally:
        sys.stdout, sys.stderr = streams
        if own is None:
            del publisher.publish  # the method of its class again
        else:
            publisher.publish = own
