"""The text field of `saying.py` as a widget."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget

from mentra_nb.page.render import Bundle


class SayField(anywidget.AnyWidget):
    """A text field and a button. `heard` is called with what the page sends."""

    _esm: Path = Path(__file__).with_suffix(".js")

    def __init__(self, heard: Callable[[Any], None]) -> None:
        super().__init__()
        self.on_msg(lambda _widget, content, _buffers: heard(content))

    def bundle(self) -> Bundle:
        """Return it as a mimebundle; front ends without widgets show nothing."""
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        return {"application/vnd.jupyter.widget-view+json": view, "text/plain": ""}

    def close(self) -> None:
        """Remove it from every page and close its comms."""
        layout: Any = self.layout
        super().close()
        layout.close()
