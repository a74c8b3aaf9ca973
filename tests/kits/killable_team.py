"""A team whose process kills itself at a named step, and is resumed by another process.

As a program it takes a folder and steps as `request:2`. For each step it forks a process that makes a team and kills
itself there, and one that resumes the team and waits until it is idle; then it prints a line of JSON about what is
left. Answers depend only on how many results a request has, so that it does not matter which process asks.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from mentra_nb.authorization import allow_everything
from mentra_nb.event.bus import NullAudit
from mentra_nb.providers.base import ModelInfo, ProviderEvent, Request
from mentra_nb.providers.scripted import ScriptedProvider, text, tool_calls
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.teams.team import team_of
from mentra_nb.teams.tools import team_tools
from mentra_nb.tools.function import tool

LEAD = [
    tool_calls([("team_spawn", {"name": "bob", "role": "works", "prompt": "Do both parts."})]),
    text("I have asked bob."),
]
BOB = [
    tool_calls([("work", {"part": 1})]),
    tool_calls([("work", {"part": 2})]),
    tool_calls([("team_send", {"to": "lead", "content": "Both are done."})]),
    text("Reported."),
]


class Steps:
    """Counts the steps, and kills the process at one of them; without one it kills nothing."""

    def __init__(self, at: str = "") -> None:
        self._name, _, number = at.partition(":")
        self._left = int(number or 0)

    def __call__(self, name: str) -> None:
        if name == self._name:
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self._left -= 1


class Script(ScriptedProvider):
    def __init__(self, step: Steps) -> None:
        super().__init__()
        self._step = step

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[ProviderEvent]]:
        script = BOB if "You are 'bob'" in (request.system or "") else LEAD
        if script is BOB:
            self._step("request")
        done = sum(len(message.tool_results()) for message in request.messages)
        self.push(script[min(done, len(script) - 1)])
        async with super().stream(request) as events:
            yield events


class Store(SqliteStore):
    """Says when it writes, when mail is taken and acknowledged, and when a turn has finished."""

    def __init__(self, path: Path, step: Steps) -> None:
        super().__init__(path)
        self._step = step

    async def write(self, work: Any, **how: Any) -> Any:
        self._step("write")
        return await super().write(work, **how)

    async def take_messages(self, team: str, recipient: str) -> Any:
        found = await super().take_messages(team, recipient)
        self._step("taken")
        return found

    async def acknowledge_messages(self, team: str, recipient: str, ids: Any) -> None:
        self._step("finished")
        await super().acknowledge_messages(team, recipient, ids)
        self._step("acknowledged")

    async def post_message(self, team: str, recipients: Any, message: Any) -> None:
        await super().post_message(team, recipients, message)
        self._step("posted")


def runtime(folder: Path, step: Steps) -> Runtime:
    @tool
    def work(part: int) -> str:
        """Do a part."""
        with (folder / "work").open("a") as file:
            file.write(f"{part}\n")
        step("worked")
        return "done"

    return Runtime(
        [Script(step)],
        [*team_tools(), work],
        builtin_tools=False,
        store=Store(folder / "state.sqlite", step),
        audit=NullAudit(),
        authorizer=allow_everything,
        working_directory=folder,
    )


async def begin(folder: Path, step: Steps) -> None:
    async with runtime(folder, step) as made:
        lead = await made.spawn("lead", ModelInfo(id="scripted", provider="scripted"))
        await lead.send("Have it done.")
        await team_of(lead).wait_until_idle()


async def go_on(folder: Path) -> dict[str, Any]:
    async with runtime(folder, Steps()) as made:
        if not (found := await made.resume()):
            return {"members": [], "read": 0, "to_lead": [], "to_bob": 0, "work": []}
        team = team_of(found[0])
        await team.load()
        with anyio.fail_after(20):
            await team.wait_until_idle()
        histories = [await made.store.load_path(mate.agent.id, mate.agent.leaf) for mate in team.at_work.values()]
        return {
            "read": ["Do both parts" in entry.message.text() for path in histories for entry in path].count(True),
            "members": [(member.name, member.status) for member in team.members()],
            "to_lead": [message.content for message, _ in await made.store.open_messages(team.id, "lead")],
            "to_bob": len(await made.store.open_messages(team.id, "bob")),
            "work": (folder / "work").read_text().split() if (folder / "work").exists() else [],
        }


def in_child(work: Any) -> int:
    """Run a function in a forked process, and return the exit status of that."""
    if (child := os.fork()) == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: Path, steps: list[str]) -> None:
    for at in steps:
        own = folder / at.replace(":", "-")
        own.mkdir()
        killed = in_child(lambda own=own, at=at: anyio.run(begin, own, Steps(at)))

        def resume(own: Path = own, at: str = at, killed: int = killed) -> None:
            print(json.dumps({"at": at, "killed": killed, **anyio.run(go_on, own)}), flush=True)

        in_child(resume)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
