"""The default store, record and tools of a runtime. They load libraries, so each is imported when it is used."""

from __future__ import annotations

from mentra_nb.event.bus import AuditStore
from mentra_nb.store.protocols import RuntimeStore
from mentra_nb.tools.tool import Tool


def store() -> RuntimeStore:
    """Return the state store of `MENTRA_STATE`, or the one in the user's home for mentra."""
    from mentra_nb.store.open import open_store

    return open_store()


def record() -> AuditStore:
    """Return the journal of `MENTRA_RECORD`, or the one in the user's home for mentra."""
    from mentra_nb.record.open import open_journal

    return open_journal()


def tools() -> list[Tool]:
    """Return the tools that read and write files and run commands."""
    from mentra_nb.tools.builtin.files import ReadTool, WriteTool
    from mentra_nb.tools.builtin.shell import ShellTool

    return [ReadTool(), WriteTool(), ShellTool()]
