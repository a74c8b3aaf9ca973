"""Run the examples of docstrings as a notebook would: offline, with a model that always gives the same answers."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import inspect
import io
import os
import re
import shutil
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import mentra_nb as mn
from mentra_nb.chat.engine import engine, reset
from mentra_nb.content import Text, TokenUsage
from mentra_nb.providers import scripted
from mentra_nb.providers.base import ModelInfo, Provider, ProviderDescriptor, ProviderEvent, Request

USAGE = TokenUsage(input_tokens=120, output_tokens=8)
TAPE = Path(__file__).parents[2] / "notebooks" / "01_first_turn.replay.jsonl"
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class ExampleModel(Provider):
    """Calls `revenue` where it is offered, and `shell` for what it is asked to run; else it answers in a line.

    A typed answer is Oslo.
    """

    descriptor: ProviderDescriptor = ProviderDescriptor(id="example", display_name="Example")

    async def list_models(self) -> list[ModelInfo]:
        return [ModelInfo(id="small", provider="example")]

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[ProviderEvent]]:
        yield self._events(request)

    async def _events(self, request: Request) -> AsyncIterator[ProviderEvent]:
        last = request.messages[-1]
        prompt = " ".join(block.text for block in last.content if isinstance(block, Text))
        command = prompt.partition("Run ")[2].strip("`.")
        typed = next((tool.name for tool in request.tools if tool.name.startswith("mentra_terminal_")), None)
        if typed is not None:
            answer = scripted.tool_calls([(typed, {"value": ["Oslo"]})], usage=USAGE)
        elif command:
            answer = scripted.tool_calls([("shell", {"command": command})], usage=USAGE)
        elif prompt and any(tool.name == "revenue" for tool in request.tools):
            answer = scripted.tool_calls([("revenue", {"month": "2026-03"})], usage=USAGE)
        else:
            answer = scripted.stream_text(["Revenue in March ", "was 2400 dollars."], usage=USAGE)
        for event in answer.events:
            yield event


def use_example_model() -> None:
    """Ask the example model from here on, whatever an earlier example has connected."""
    if engine().settings.model != "example/small":
        reset()
        engine().use(ExampleModel(), "small")


def examples_of(value: Any) -> list[doctest.Example]:
    """The examples in an object's docstring."""
    return doctest.DocTestParser().get_examples(inspect.getdoc(value) or "")


def run(name: str, examples: list[doctest.Example], names: dict[str, Any]) -> None:
    """Run examples one after the other, `await` at the top level included. Raises `AssertionError`.

    Examples that name them have a `runtime`, and an `agent` and a `session` of it on `model`.
    """
    checker = doctest.OutputChecker()
    with asyncio.Runner() as loop:
        if re.search(r"\b(runtime|agent|session)\b", "".join(example.source for example in examples)):
            names |= loop.run(_objects())
        for example in examples:
            code = compile(example.source, name, "single", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            printed, raised = io.StringIO(), None
            with contextlib.redirect_stdout(printed):
                try:
                    result = eval(code, names)
                    if inspect.iscoroutine(result):
                        loop.run(result)
                except Exception as error:  # what an example raises is part of it
                    raised = "".join(traceback.format_exception_only(error))
            assert (raised is None) == (example.exc_msg is None), raised or f"{example.source} raised nothing"
            wanted, found = (example.want, printed.getvalue()) if raised is None else (example.exc_msg, raised)
            if not checker.check_output(wanted or "", found, OPTIONS):
                raise AssertionError(f"{example.source}wanted:\n{wanted}\nfound:\n{found}")


async def _objects() -> dict[str, Any]:
    model = ModelInfo(id="small", provider="example")
    runtime = mn.Runtime([ExampleModel()], store=mn.VolatileStore(), audit=mn.NullAudit())
    agent = await runtime.spawn("analyst", model)
    session = await runtime.create_session("report", model)
    return {"model": model, "runtime": runtime, "agent": agent, "session": session}


@contextlib.contextmanager
def notebook(home: Path) -> Iterator[dict[str, Any]]:
    """A fresh process's names in an empty folder, after a conversation named `sales`."""
    before, folder = dict(os.environ), Path.cwd()
    for name in [name for name in os.environ if name.endswith("_API_KEY") or name.startswith("MENTRA_")]:
        del os.environ[name]
    os.environ["MENTRA_HOME"] = str(home / "home")
    os.chdir(home)
    shutil.copy(TAPE, "first_turn.jsonl")
    Path("skills/report").mkdir(parents=True)
    Path("skills/report/SKILL.md").write_text("---\nname: report\ndescription: Write a report.\n---\nRead the data.")
    reset()
    try:
        use_example_model()
        with mn.Chat("sales") as chat:
            chat.allow("shell", "echo *", scope="project")
            chat.deny("shell", "git push*", reason="ask me first")
            for prompt in ("What was the revenue in March?", "Run `echo clean`", "Run `git push`"):
                chat.ask(prompt)
        yield {"mn": mn, "__name__": "__main__"}
    finally:
        reset()
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(before)
