"""Tools that ask for the thread of the cell: in a program the thread that waits for the turn runs them."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from mentra_nb.agent.limits import RunOptions
from mentra_nb.chat.chat import Chat, chat_on
from mentra_nb.chat.engine import Engine
from mentra_nb.errors import DeadlineExceeded
from mentra_nb.event.bus import NullAudit
from mentra_nb.providers.scripted import ScriptedProvider, text, tool_calls
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.settings import Settings
from mentra_nb.store.volatile import VolatileStore
from mentra_nb.tools.function import tool


@contextmanager
def chat_with(function: Callable[[], Any]) -> Iterator[Chat]:
    """Give a conversation whose model calls the function as a tool of the waiting thread."""
    provider = ScriptedProvider([tool_calls([("act", {})]), text("Done.")])
    runtime = Runtime([provider], builtin_tools=False, store=VolatileStore(), audit=NullAudit())
    engine = Engine(Settings(model="scripted/scripted"), runtime)
    made = tool(name="act", main_thread=True, asks=False, reads_only=True)(function)
    try:
        yield chat_on(engine, tools=[made])
    finally:
        engine.close()


@contextmanager
def at_an_interrupt(act: Any) -> Iterator[None]:
    """Inside, the process does this at an interrupt."""
    before = signal.signal(signal.SIGINT, act)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def ident() -> int:
    return threading.get_ident()


def said(chat: Chat) -> str:
    """Return the result of the tool, as the model got it."""
    [result] = [block for message in chat.history for block in message.content if hasattr(block, "tool_use_id")]
    return str(result.content)


def test_the_thread_that_asks_runs_the_tool() -> None:
    ways: list[Callable[[Chat], Any]] = [
        lambda chat: chat.ask("go"),
        lambda chat: list(chat.stream("go")),
        lambda chat: chat.start("go", waits=True).result(),
    ]
    for ask in ways:
        with chat_with(ident) as chat:
            ask(chat)
            assert said(chat) == str(threading.get_ident())


def test_another_thread_that_asks_runs_it_as_well() -> None:
    with chat_with(ident) as chat, ThreadPoolExecutor(1) as pool:
        pool.submit(chat.ask, "go").result()
        assert said(chat) == str(pool.submit(threading.get_ident).result())


@pytest.mark.anyio
async def test_where_no_thread_waits_the_call_is_refused_in_a_sentence() -> None:
    with chat_with(ident) as chat:
        assert (await chat.aask("go")).text == "Done."
        assert "it runs on the thread that waits for the turn, and none does" in said(chat)


@pytest.mark.anyio
async def test_nobody_is_asked_about_a_call_that_has_no_thread_to_run_on() -> None:
    with chat_with(ident) as chat:
        chat._engine.settings.change("ask", "always", "test")
        turn = chat.start("go", limits=RunOptions(deadline=time.time() + 5), in_background=True)
        assert (await turn.aresult()).text == "Done."  # a question would have waited until the deadline
        assert "it runs on the thread that waits for the turn, and none does" in said(chat)


@pytest.mark.parametrize("in_thread", [False, True])
def test_a_turn_that_runs_out_of_time_interrupts_it(*, in_thread: bool) -> None:
    def wait() -> None:
        while True:
            time.sleep(0.01)  # in steps: only the main thread can be woken from a long sleep

    with chat_with(wait) as chat, ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        limits = RunOptions(deadline=time.time() + 0.3)
        ask = partial(chat.ask, "go", limits=limits)
        with pytest.raises(DeadlineExceeded):
            (pool.submit(ask).result if in_thread else ask)()
        assert time.monotonic() - began < 5
        assert pool.submit(threading.get_ident).result()  # the thread is free again


@pytest.mark.parametrize("act", [signal.SIG_IGN, signal.SIG_DFL, lambda *_: None], ids=["ignore", "end", "other"])
def test_it_is_interrupted_whatever_the_process_does_at_an_interrupt(act: Any) -> None:
    def wait() -> None:
        for _ in range(1000):
            time.sleep(0.01)

    with chat_with(wait) as chat, at_an_interrupt(act):
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            chat.ask("go", limits=RunOptions(deadline=time.time() + 0.3))
        assert time.monotonic() - began < 3
        assert signal.getsignal(signal.SIGINT) == act


def test_an_interrupt_that_the_process_ignores_does_not_end_the_work() -> None:
    with chat_with(lambda: signal.raise_signal(signal.SIGINT) or "went on") as chat, at_an_interrupt(signal.SIG_IGN):
        assert chat.ask("go").text == "Done."
        assert said(chat) == "went on"


def test_work_that_catches_an_interrupt_is_interrupted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mentra_nb.tools.waiting_thread.AGAIN_AFTER", 0.05)
    caught = []

    def wait() -> None:
        while len(caught) < 2:
            try:
                while True:
                    time.sleep(0.01)
            except KeyboardInterrupt:
                caught.append(1)
        raise KeyboardInterrupt

    with chat_with(wait) as chat:
        with pytest.raises(DeadlineExceeded):
            chat.ask("go", limits=RunOptions(deadline=time.time() + 0.3))
        assert len(caught) == 2


def test_what_the_tool_raises_is_its_result() -> None:
    def leave() -> None:
        raise SystemExit("gone")

    with chat_with(leave) as chat:
        assert chat.ask("go").text == "Done."
        assert "SystemExit: gone" in said(chat)
