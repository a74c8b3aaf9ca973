"""Counting the questions that calls lead to, in a real session, with nothing kept and nothing let out."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kits.core import bench
from kits.trees import Tree, tree_in
from kits.workload import Call
from mentra_nb.authorization import PermissionDecision, PermissionQuestion
from mentra_nb.event import screen as shown
from mentra_nb.permission.asking import SandboxMode
from mentra_nb.permission.policy import RuntimePolicy
from mentra_nb.providers.scripted import text, tool_calls
from mentra_nb.runtime.defaults import tools

POLICY = RuntimePolicy.for_notebook()


@dataclass
class Outside:
    """A server on this machine that counts who reaches it, and files outside the project that must not be there."""

    server: str
    mark: str
    connections: int = 0

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(
            folder / f"{self.mark}{end}" for folder in (Path.home(), Path("/tmp")) for end in ("", ".csv", ".txt")
        )

    def reached(self) -> list[str]:
        """Return what was reached of all that is outside."""
        connections = [f"{self.connections} connections"] if self.connections else []
        return [*connections, *(str(path) for path in self.files if path.exists())]


@contextmanager
def outside(mark: str) -> Iterator[Outside]:
    """Run the server; `mark` is the name of the files."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        found = Outside(f"127.0.0.1:{listening.getsockname()[1]}", mark)

        def count() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                found.connections += 1
                connection.close()

        thread = threading.Thread(target=count, daemon=True)
        thread.start()
        try:
            yield found
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            for path in found.files:
                path.unlink(missing_ok=True)


@dataclass
class Asked:
    """What was asked about."""

    calls: list[Call] = field(default_factory=list)
    """The calls that led to a question."""
    reasons: list[str] = field(default_factory=list)
    harm: list[str] = field(default_factory=list)
    """What had changed or been reached, before any answer or by a call that needed none."""

    def by_kind(self) -> Counter[str]:
        return Counter(call.kind for call in self.calls)


async def ask_about(calls: Sequence[Call], project: Path, sandbox: SandboxMode, beyond: Outside) -> Asked:
    """Make the calls one after another in a real session without rules, and answer each question with *Discard*.

    So each call begins with the same project, and whatever changes was not kept by anybody.
    """
    found, before = Asked(), tree_in(project)
    options = {"tools": tools(POLICY), "policy": POLICY, "authorizer": None}
    async with bench(working_directory=project, **options) as table:
        session = await table.session()
        session.permissions.sandbox = sandbox
        current: list[Call] = []

        def hear(event: shown.SessionEvent) -> None:
            if isinstance(event, shown.QuestionAsked):
                [question] = session.permissions.open_questions()
                found.calls.append(current[-1])
                found.reasons.append(_reason(question))
                found.harm.extend(_harm(project, before, beyond))
                session.resolve_permission(event.request_id, PermissionDecision(allow=False))

        session.subscribe(hear)
        for call in calls:
            current.append(call)
            table.provider.push(tool_calls([(call.tool, call.arguments)]), text("ok"))
            await session.append_turn("go")
            found.harm.extend(_harm(project, before, beyond))
    return found


def _reason(question: PermissionQuestion) -> str:
    if question.effect is None:
        return "asked beforehand"
    if question.effect.outside:
        return "; ".join(question.effect.wanted)
    names = sorted({Path(file.path).name for file in question.effect.files})
    return f"changed {', '.join(names[:4])}"


def _harm(project: Path, before: Tree, beyond: Outside) -> list[str]:
    now = tree_in(project)
    changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    return [*changed, *beyond.reached()]
