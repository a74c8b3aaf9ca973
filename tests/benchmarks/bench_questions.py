"""Count the questions of 300 calls of data work: `python tests/benchmarks/bench_questions.py`.

Each call goes through a real session twice, without rules: once asked about beforehand (`sandbox = "off"`), once by
what it did in the sandbox. It fails when the sandbox leaves more than 40 % of the questions, or when anything is
changed or reached before somebody has agreed. With `--take URL` the model that a llama.cpp server has there is asked
for the calls of `kits/taken.jsonl` first; nothing that it does is kept.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from kits.asked import POLICY, Asked, ask_about, outside
from kits.core import heard, of
from kits.fences import needs_fence
from kits.workload import PROMPTS, TAKEN, TOTAL, Call, generated, make_project, taken

from mentra_nb.agent.config import AgentConfig
from mentra_nb.agent.limits import RunOptions
from mentra_nb.chat.instructions import SYSTEM
from mentra_nb.errors import MentraError
from mentra_nb.event.bus import NullAudit
from mentra_nb.event.calls import ToolUseReady
from mentra_nb.providers.base import ModelInfo
from mentra_nb.providers.registry import builtin
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.store.volatile import VolatileStore

LIMIT = 0.4
TIMES = 2
"""How often the model is asked each question. Its template offers tools in the first round only."""
TOOLS = ("read", "write", "shell")


async def take(url: str, project: Path) -> None:
    """Ask the real model, and keep the calls that it makes."""
    model, made = ModelInfo(id="qwen", provider="llamacpp"), 0
    provider = builtin("llamacpp", base_url=url)
    options = {"policy": POLICY, "working_directory": project, "store": VolatileStore(), "audit": NullAudit()}
    with TAKEN.open("w") as file:
        async with Runtime([provider], **options) as runtime:
            for number, prompt in enumerate(PROMPTS * TIMES):
                config = AgentConfig(system=SYSTEM, tools=TOOLS, max_output_tokens=300)
                session = await runtime.create_session(f"taken{number}", model, config)
                session.permissions.sandbox, session.permissions.can_ask = "auto", lambda: False
                events = heard(session.agent)
                with contextlib.suppress(MentraError):  # it is stopped after its first round
                    await session.append_turn(prompt, RunOptions(max_rounds=1))
                for use in (event.call for event in of(events, ToolUseReady)):
                    if use.error is None:
                        file.write(json.dumps({"tool": use.name, "arguments": use.input}) + "\n")
                        made += 1
                file.flush()
                print(f"  {made} calls after {prompt!r}", flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--take", metavar="URL")
    options = parser.parse_args()
    needs_fence()
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        os.environ["MENTRA_HOME"] = f"{folder}/home"
        os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        project.mkdir()
        make_project(project)
        if options.take:
            await take(options.take, project)
        with outside(f"mentra-workload-{os.getpid()}") as beyond:
            made = taken()
            calls = [*made, *generated(TOTAL - len(made), beyond.server, beyond.mark)]
            today = await ask_about(calls, project, "off", beyond)
            asked = await ask_about(calls, project, "auto", beyond)
    report(calls, today, asked)


def report(calls: list[Call], today: Asked, asked: Asked) -> None:
    """Print the questions by kind of call, and fail if there are too many, or one was too late."""
    print(f"  {'calls':<40} {'number':>7} {'asked beforehand':>17} {'by effect':>10}")
    before, after = today.by_kind(), asked.by_kind()
    total = Counter(call.kind for call in calls)
    for kind in sorted(total, key=lambda kind: -total[kind]):
        print(f"  {kind:<40} {total[kind]:>7} {before[kind]:>17} {after[kind]:>10}")
    share = len(asked.calls) / len(today.calls)
    print(f"  {'all':<40} {len(calls):>7} {len(today.calls):>17} {len(asked.calls):>10}: {share:.1%}")
    for call, reason in zip(asked.calls, asked.reasons, strict=True):
        if call.tool == "shell":
            print(f"    {call.arguments['command'][:70]!r}: {reason[:110]}")
    shell = [call for call in calls if call.tool == "shell"]
    others = len(asked.calls) - sum(call.tool == "shell" for call in asked.calls)
    most = (LIMIT * len(today.calls) - others) / len(shell)
    print(f"  that is at most {LIMIT:.0%} while at most {most:.0%} of the {len(shell)} commands are asked about")
    if found := [*today.harm, *asked.harm]:
        sys.exit(f"before anybody agreed: {found[:5]}")
    if share > LIMIT:
        sys.exit(f"more than {LIMIT:.0%} of the questions are left")


if __name__ == "__main__":
    asyncio.run(main())
