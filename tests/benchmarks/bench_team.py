"""Let a real model be a team of five, kill it in the midst, resume it: `python tests/benchmarks/bench_team.py`.

`--take URL` names a llama.cpp server, as `http://127.0.0.1:8080/v1`; without it nothing is done. The lead asks each
of five readers by `team_request` to shorten the letter of a customer, and a reader answers by `team_respond`. After two
answers the process is killed with `kill -9`. Another resumes the lead and its readers, and asks who was not asked yet.
A try succeeds when each reader was asked once and has answered once, and the lead has read each answer once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from mentra_nb.agent.agent import Agent
from mentra_nb.agent.config import AgentConfig
from mentra_nb.agent.limits import RunOptions
from mentra_nb.errors import MentraError, NoResumableTurn
from mentra_nb.event.bus import NullAudit
from mentra_nb.event.rare import TeamProtocolResolved
from mentra_nb.event.types import AgentEvent
from mentra_nb.providers.base import ModelInfo
from mentra_nb.providers.registry import builtin
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.teams.joining import spawn
from mentra_nb.teams.team import team_of
from mentra_nb.teams.tools import team_tools

ROLE = "Shortens letters. Answers a request with team_respond; the reason is what the customer wants, in a few words."
LETTERS = {
    "ann": "The parcel came late and the box was broken. I want my money back.",
    "ben": "Thank you, the lamp is wonderful. Do you also have it in blue?",
    "cem": "Where is my parcel? I ordered it a week ago and have heard nothing.",
    "dora": "My account stopped working after two days. Please open it again.",
    "emil": "I moved last month. Please send the next invoice to 4 Mill Lane.",
}
KILLED_AFTER = 2
"""Answers."""
TIMES = 3
"""How often the lead is asked to ask a reader, at most."""


def prompt(name: str) -> str:
    return f'Call team_request once: to "{name}", protocol "letter", content: {LETTERS[name]}'


async def lead_and_wait(lead: Agent) -> None:
    """Have the lead ask each reader that it has not asked, and wait for the answers."""
    team = team_of(lead)
    await team.load()
    for name in LETTERS:
        for _ in range(TIMES):
            if any(request.recipient == name for request in team.requests()):
                break
            with contextlib.suppress(MentraError):
                await lead.run(prompt(name), RunOptions(max_rounds=3))
    await team.wait_until_idle()


def say_answered(event: AgentEvent) -> None:
    if isinstance(event, TeamProtocolResolved):
        sys.stdout.write("answered\n")
        sys.stdout.flush()


async def work(url: str, folder: Path, *, resumes: bool) -> None:
    options = {"builtin_tools": False, "store": SqliteStore(folder / "state.sqlite"), "audit": NullAudit()}
    async with Runtime([builtin("llamacpp", base_url=url)], team_tools(), **options) as runtime:
        if not resumes:
            config = AgentConfig(
                system="You lead a team.", tools=("team_request",), temperature=0, max_output_tokens=200
            )
            lead = await runtime.spawn("lead", ModelInfo(id="qwen", provider="llamacpp"), config)
            lead.environment.bus.tap(say_answered)
            for name in LETTERS:
                lead.config = lead.config.model_copy(update={"tools": ("team_request", "team_respond")})
                await spawn(team_of(lead), name, ROLE, tools=["team_respond"])
            lead.config = config
            await lead_and_wait(lead)
            return
        [lead] = await runtime.resume()
        revived = [member.name for member in team_of(lead).members() if member.status != "dormant"]
        with contextlib.suppress(NoResumableTurn):
            await lead.resume(RunOptions(max_rounds=3))
        await lead_and_wait(lead)
        answer = await lead.run("What do the customers want?", RunOptions(without_tools=True))
        requests = team_of(lead).requests()
        mail = [message.text() for message in lead.history() if message.text().startswith("<team-inbox>")]
        read = Counter(json.loads(text.split("\n", 1)[1].rsplit("\n", 1)[0])[0]["request_id"] for text in mail)
        asked = Counter(request.recipient for request in requests)
        answered = {request.request_id for request in requests if request.status != "pending"}
        once = asked == Counter(LETTERS) or all(asked[name] == 1 for name in LETTERS)
        said = {request.recipient: request.resolution_reason for request in requests}
        found = {"once": once, "answered": len(answered), "read": sorted(read.values()), "revived": revived}
        found["succeeded"] = once and len(answered) == len(LETTERS) and read == Counter(dict.fromkeys(answered, 1))
        print(json.dumps({**found, "said": said, "lead": answer.text()}), flush=True)


async def one_try(url: str) -> bool:
    """Begin, kill and resume a team. Prints what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        command, began = (sys.executable, __file__, "--take", url, "--folder", folder), time.monotonic()
        first = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        assert first.stdout is not None
        for _ in range(KILLED_AFTER):
            await first.stdout.readline()
        if first.returncode is None:
            os.kill(first.pid, signal.SIGKILL)
        killed, half = await first.wait(), time.monotonic()
        second = await asyncio.create_subprocess_exec(*command, "--resume", stdout=subprocess.PIPE)
        output, _ = await second.communicate()
        found = json.loads(output) if second.returncode == 0 else {"succeeded": False}
        print(f"  killed ({killed}) after {half - began:.0f} s, done after {time.monotonic() - began:.0f} s: {found}")
        return killed == -signal.SIGKILL and bool(found["succeeded"])


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--take", metavar="URL")
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--resume", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.take is None:
        print("a team of a real model: not tried, as no server is named (--take URL)")
    elif options.folder is not None:
        await work(options.take, options.folder, resumes=options.resume)
    else:
        won = [await one_try(options.take) for _ in range(options.tries)]
        print(f"{sum(won)} of {len(won)} tries of a killed team of {len(LETTERS)} did the work once")


if __name__ == "__main__":
    asyncio.run(main())
