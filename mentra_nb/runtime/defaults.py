"""The default store, record and tools of a runtime. They load libraries, so each is imported when it is used."""

from __future__ import annotations

from mentra_nb.background.jobs import Jobs
from mentra_nb.browser import IN_BROWSER
from mentra_nb.event.bus import AuditStore
from mentra_nb.paths import home
from mentra_nb.permission.policy import RuntimePolicy
from mentra_nb.store.protocols import RuntimeStore
from mentra_nb.store.records import LeaseHolder
from mentra_nb.tools.tool import Tool


def store() -> RuntimeStore:
    """Return the state store of `MENTRA_STATE`, or the one in the user's home for mentra."""
    from mentra_nb.store.open import open_store

    return open_store()


def record() -> AuditStore:
    """Return the journal of `MENTRA_RECORD`, or the one in the user's home for mentra."""
    from mentra_nb.record.open import open_journal

    return open_journal()


def jobs(store: RuntimeStore, holder: LeaseHolder) -> Jobs:
    """Return the background jobs of a runtime. Their outputs are kept in the home, if the store is on a disk."""
    from mentra_nb.store.volatile import VolatileStore

    return Jobs(store, holder, None if isinstance(store, VolatileStore) else home() / "jobs")


def tools(policy: RuntimePolicy) -> list[Tool]:
    """Return the tools that read and write files and run commands, in the background too if the policy allows it.

    In a browser there are no commands.
    """
    from mentra_nb.tools.builtin.files.batch import FilesTool
    from mentra_nb.tools.builtin.files.single import ReadTool, WriteTool
    from mentra_nb.tools.builtin.shell import ShellTool

    offered: list[Tool] = [FilesTool(), ReadTool(), WriteTool()]
    if IN_BROWSER:
        return offered
    offered.append(ShellTool())
    if policy.allow_background_commands:
        from mentra_nb.tools.builtin.background import BackgroundRunTool, CheckBackgroundTool, StopBackgroundTool

        offered += [BackgroundRunTool(), CheckBackgroundTool(), StopBackgroundTool()]
    return offered
