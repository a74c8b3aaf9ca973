"""The way of a prompt, from the cell to the wire: which functions it passes, and that they stay few."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from kits.http_server import Reply, Server, sse
from kits.shells import loaded_shell

from mentra_nb.chat.engine import reset

MOST = 16
PASSED = [
    "notebook.magics:Mentra.mentra",
    "notebook.grammar:parse",
    "chat.api:conversation",
    "chat.chat:Chat.start",
    "chat.engine:Engine.start_turn",
    "chat.chat:Chat._take_turn",
    "runtime.runtime:Runtime.open_session",
    "chat.engine:Engine.model",
    "runtime.sessions:Sessions.create",
    "runtime.session:Session.append_turn",
    "agent.agent:Agent.run",
    "agent.loop:run_rounds",
    "agent.loop:ask_model",
    "agent.request:assemble",
    "providers.wire:WireProvider.stream",
    "providers.http:HttpxTransport.send",
]
"""Every function that takes the first prompt of a conversation one step further, in this order."""
HOP, WIRE = "chat.engine:Engine.start_turn", "providers.http:HttpxTransport.send"
CHUNK = {"id": "1", "model": "m", "choices": [{"index": 0, "delta": {"content": "Hi."}, "finish_reason": "stop"}]}


class Tracer:
    """Notes the functions of the package that are entered, and the stacks at the hop to the engine and at the wire."""

    def __init__(self) -> None:
        self.entered: list[str] = []
        self.stacks: dict[str, list[str]] = {}

    def __call__(self, frame: FrameType, event: str, _arg: Any) -> None:
        if event == "call" and (name := name_of(frame)) is not None:
            self.entered.append(name)
            if name in (HOP, WIRE):
                self.stacks.setdefault(name, stack_of(frame))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While inside, trace this thread and those that are started."""
        threading.setprofile(self)
        sys.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)


def name_of(frame: FrameType) -> str | None:
    module = str(frame.f_globals.get("__name__"))
    return (
        f"{module.removeprefix('mentra_nb.')}:{frame.f_code.co_qualname}" if module.startswith("mentra_nb.") else None
    )


def stack_of(frame: FrameType | None) -> list[str]:
    """Return the functions of the package on the stack, outermost first."""
    found = []
    while frame is not None:
        found.append(name_of(frame))
        frame = frame.f_back
    return [name for name in reversed(found) if name is not None]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("MENTRA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    reset()
    with loaded_shell() as shell:
        yield shell
    reset()


@pytest.fixture
def lab() -> Iterator[Server]:
    """A server that answers one prompt, on a loop in a thread that no tracer watches."""
    loop, server = asyncio.new_event_loop(), Server()
    server.reply(Reply([sse(CHUNK, done=True)]))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(10)
    yield server
    asyncio.run_coroutine_threadsafe(server.__aexit__(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def in_order(wanted: list[str], entered: list[str]) -> bool:
    """Return whether `wanted` are entered one after the other."""
    rest = iter(entered)
    return all(name in rest for name in wanted)


def test_a_prompt_passes_few_functions_on_its_way_to_the_wire(shell: Any, lab: Server) -> None:
    shell.run_cell(f"import mentra_nb as mn; mn.connect('lab', {lab.url!r}, model='m')")
    tracer = Tracer()
    with tracer.watching():
        shell.run_cell_magic("mentra", "", "Say hi.")
    (request,) = lab.requests
    assert request.json()["messages"][-1]["content"] == "Say hi."
    assert str(shell.user_ns["_mentra"]) == "Hi."

    assert in_order(PASSED, tracer.entered), [name for name in PASSED if name not in tracer.entered]
    engine = tracer.stacks[WIRE]
    on_the_stack = tracer.stacks[HOP] + engine[engine.index("chat.chat:Chat._take_turn") :]
    assert set(on_the_stack) <= set(PASSED)
    assert len(on_the_stack) <= len(PASSED) <= MOST
