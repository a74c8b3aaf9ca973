"""One runtime on one background thread, shared by everything synchronous in this process.

The thread starts with the first call and is a daemon. Another thread closes the engine when the program has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from dataclasses import replace
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from anyio.from_thread import BlockingPortal

from mentra_nb.agent.limits import RunOptions
from mentra_nb.amounts import Period
from mentra_nb.browser import IN_BROWSER, started, wait_for
from mentra_nb.chat.abilities import Abilities
from mentra_nb.chat.instructions import system_prompt
from mentra_nb.chat.models import choose, newest_chat_model, open_provider
from mentra_nb.chat.offers import offer_named
from mentra_nb.chat.reply import Reply
from mentra_nb.chat.turn import RunningTurn, TakeTurn, TurnPlan, presenter
from mentra_nb.chat.waking import Waking
from mentra_nb.errors import Cancelled, ConfigurationError
from mentra_nb.permission.policy import RuntimePolicy
from mentra_nb.providers.base import ModelInfo, Provider
from mentra_nb.record.keep.change import wait_for_upkeep
from mentra_nb.record.open import open_journal
from mentra_nb.record.read.views import refresh_database, refresh_database_later
from mentra_nb.record.write.journal import Journal
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.setting_files import load
from mentra_nb.settings import Settings
from mentra_nb.tools.tool import Tool

log: logging.Logger = logging.getLogger(__name__)

T = TypeVar("T")
SETTLE_SECONDS = 1.0
"""How long `close` waits for the turns it stopped."""


class Engine:
    """The thread, its runtime and the settings. `engine()` returns the one of this process."""

    def __init__(self, settings: Settings | None = None, runtime: Runtime | None = None) -> None:
        self.settings: Settings = settings or load()
        self.runtime: Runtime = runtime or Runtime(
            policy=RuntimePolicy.for_notebook(),
            audit=open_journal(log_text=self.settings.log_text, redact=self.settings.redact),
            mcp=self.settings.mcp,
        )
        self.abilities: Abilities = Abilities()
        self._not_offered: list[str] = []
        if runtime is None:
            self.offer_settings()
        self.chats: dict[str | None, Any] = {}
        """The conversations of this process, by name."""
        self.opened: weakref.WeakSet[Any] = weakref.WeakSet()
        """The conversations that have a session of the runtime."""
        self.listed: set[str] = set()
        """The names of the models that servers have listed."""
        self.began: float = time.time()
        """When it was made, in Unix seconds."""
        self.waking: Waking = Waking(self.runtime.jobs, self.opened, self.start_turn, lambda: self.settings.wake)
        self.turns: set[RunningTurn] = set()
        """The turns that are running."""
        self._said: set[str] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._portal: BlockingPortal | None = None

    def portal(self) -> BlockingPortal:
        """Return the portal to the engine's thread. Starts the thread if there is none or it has ended."""
        with self._lock:
            if self._portal is None:
                if self._thread is not None:
                    self._thread.join()
                started: Future[BlockingPortal] = Future()
                self._thread = threading.Thread(target=self._serve, args=(started,), name="mentra-engine", daemon=True)
                self._thread.start()
                self._portal = started.result()
            return self._portal

    def _serve(self, started: Future[BlockingPortal]) -> None:
        closed = False

        async def main() -> None:
            nonlocal closed
            try:
                async with BlockingPortal() as portal:
                    started.set_result(portal)
                    await portal.sleep_until_stopped()
            finally:
                self._portal = None
                self.forget_sessions()
                await self.runtime.close()  # its connections belong to this loop
            closed = True

        try:
            anyio.run(main)
        except BaseException as error:  # noqa: BLE001  # the future of the call raises it too
            if not started.done():
                started.set_exception(error)
            elif not closed:  # else asyncio failed to start a thread for its own cleanup, at exit
                log.warning("the engine's thread has ended: %r", error)

    def forget_sessions(self) -> None:
        """Make conversations open their sessions again, because the runtime was closed or is the parent's of a fork."""
        for chat in list(self.opened):
            chat.forget_session()
        self.opened.clear()

    def call(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run a coroutine function on the engine's thread and return its result."""
        if IN_BROWSER:
            return wait_for(function, *args)
        return self.portal().call(function, *args)

    def is_here(self) -> bool:
        """Return whether this is the engine's own thread, where waiting for it would never end."""
        return threading.current_thread() is self._thread

    def start_turn(self, take: TakeTurn, plan: TurnPlan) -> RunningTurn:
        """Begin `take(turn, plan)` on the engine's thread and return the turn's handle at once."""
        turn = RunningTurn()
        turn.plan, turn.take = plan, take
        if self.is_here() or IN_BROWSER:
            running = asyncio.run_coroutine_threadsafe(take(turn, plan), asyncio.get_running_loop())
        else:
            running = self.portal().start_task_soon(take, turn, plan)
        self.turns.add(turn)
        turn.future.add_done_callback(lambda _: self.turns.discard(turn))
        running.add_done_callback(lambda done: _pass_on(done, turn.future))
        return turn

    async def model(self, name: str | None, turn: RunningTurn | None = None) -> ModelInfo:
        """Return the model of that name, or the default one. What the user should know is shown in `turn`.

        Runs on the engine's thread.

        Raises:
            ConfigurationError: the model is unknown or ambiguous, or its key is missing.
        """
        choice = choose(name, self.settings, os.environ, registered=self.registered())
        if choice.provider not in self.registered():
            made = open_provider(choice.provider, self.settings, os.environ, self.runtime.http)
            self.runtime.register_provider_instance(made)
        if choice.provider == "local" and choice.model is not None:
            from mentra_nb.providers.local.gguf import file_problem

            if problem := file_problem(choice.model):
                raise ConfigurationError(problem)
        if choice.model is not None:
            found = ModelInfo(id=choice.model, provider=choice.provider)
        else:
            found = newest_chat_model(choice.provider, await self.runtime.list_models(choice.provider))
        if turn is not None:
            if choice.notice:
                turn.notice(choice.notice)
            for text in (*self.settings.ignored(person=presenter() is not None), *self.not_offered()):
                self._say_once(turn, text)
        return found

    async def system_prompt(self, turn: RunningTurn) -> str:
        """Return the system prompt of a turn; `turn` shows a line about the file with notes."""
        prompt, said = await anyio.to_thread.run_sync(
            system_prompt, self.settings.instructions, presenter() is not None
        )
        if said is not None:
            self._say_once(turn, said)
        return prompt

    def reload_settings(self) -> None:
        """Read the settings anew, as after a person trusted something, and offer what they name."""
        self.settings.take_over(load())
        if isinstance(self.runtime.audit, Journal):
            self.runtime.audit.log_text, self.runtime.audit.redact = self.settings.log_text, self.settings.redact
        self.offer_settings()
        if self.settings.mcp:
            self.runtime.mcp.add(self.settings.mcp)
            self.call(self.runtime.mcp.connect_all)

    def offer_settings(self) -> None:
        """Offer what the settings name as they are: skills, and tools of installed packages. What is offered stays."""
        missing = self.abilities.offer(self.runtime, self.settings)
        self._not_offered = [*offer_named(self.runtime, self.settings), *missing]

    def not_offered(self) -> list[str]:
        """Return why what the settings name is not offered: skills, tools, MCP servers; and names that are misspelt."""
        servers = [each.error for each in self.runtime.mcp.statuses() if each.error] if self.settings.mcp else []
        if not (profile := self.settings.tool_profile):
            return [*self._not_offered, *servers]
        from mentra_nb.tools.profile import misspelt

        return [*self._not_offered, *servers, *misspelt(profile, {spec.name for spec in self.runtime.tools()})]

    def _say_once(self, turn: RunningTurn, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            turn.notice(text)

    def budgets(self, limits: RunOptions) -> Mapping[Period, str]:
        """Return the budgets of a turn: those of the settings, unless its limits name others."""
        return {**self.settings.budgets(), **limits.budgets}

    async def reviewer(self, limits: RunOptions) -> str | None:
        """Return the reviewer of a turn as `RunOptions` names it, its provider registered. Raises as `model`."""
        named = limits.reviewer or self.settings.reviewer
        return named if named in (None, "", "model") else str(await self.model(named))

    def policy(self) -> RuntimePolicy:
        """Return the runtime's policy with the environment variables that the settings name."""
        policy = self.runtime.policy
        return replace(policy, allowed_env_vars=(*policy.allowed_env_vars, *self.settings.shell_env))

    def set_model(self, name: str, source: str) -> None:
        """Make a model the one of the settings. Raises `ConfigurationError` if it could not be used."""
        self.call(self.model, name)
        self.settings.change("model", name, source)

    def registered(self) -> set[str]:
        """Return the ids of the runtime's providers."""
        return {descriptor.id for descriptor in self.runtime.providers()}

    def use(self, provider: Provider, model: str | None) -> None:
        """Register a provider and make it the model of the settings."""
        self.runtime.register_provider_instance(provider)
        name = f"{provider.descriptor.id}/{model}" if model else provider.descriptor.id
        self.settings.change("model", name, "mn.connect, mn.replay, mn.tape or mn.use")

    def offer(self, tools: Iterable[Tool]) -> None:
        """Offer tools in all conversations, those that are not offered yet."""
        for tool in tools:
            if self.runtime.tool_descriptor(tool.spec.name) is not tool.spec:
                self.runtime.register_tool(tool)

    def refresh_record(self) -> None:
        """Write the record's database file if needed, in a thread, so that other DuckDB clients can read the record."""
        if isinstance(self.runtime.audit, Journal):
            with contextlib.suppress(RuntimeError):  # no thread can be started at exit; `close` writes it then
                refresh_database_later(self.runtime.audit.folder)

    def close(self) -> None:
        """Stop the turns, close the runtime, end the thread and finish the record. The next call starts again.

        Starts no thread, because at exit none can be started.
        """
        turns = list(self.turns)
        for turn in turns:
            turn.stop()
        wait([turn.future for turn in turns], SETTLE_SECONDS)
        with self._lock:
            thread, portal = self._thread, self._portal
            self._thread = None
            if portal is not None:
                with contextlib.suppress(RuntimeError):  # it has just ended by itself
                    portal.call(portal.stop, True)
            if thread is not None:
                thread.join()
                wait_for_upkeep()
                if isinstance(self.runtime.audit, Journal):
                    refresh_database(self.runtime.audit.folder)


def _pass_on(done: Future[Reply], to: Future[Reply]) -> None:
    if done.cancelled():
        to.set_exception(Cancelled("the engine has ended"))
    elif (error := done.exception()) is not None:
        to.set_exception(error)
    else:
        to.set_result(done.result())


_engine: Engine | None = None
_engine_lock = threading.Lock()
_closer: threading.Thread | None = None
_of_the_parent: list[Engine] = []


def engine() -> Engine:
    """Return the engine of this process; the first call makes it. Raises `ConfigurationError` for a bad setting."""
    global _engine, _closer
    with _engine_lock:
        if _engine is None:
            _engine = Engine()
        if _closer is None:
            _closer = started(threading.Thread(target=_close_at_exit, name="mentra-exit", daemon=False))
        if (screen := presenter()) is not None:
            _engine.offer(screen.tools())
        return _engine


def running_turns() -> list[RunningTurn]:
    """Return the turns of this process that are running, the one begun last at the end. Makes no engine."""
    return sorted(_engine.turns, key=lambda turn: turn.number) if _engine is not None else []


def reset() -> None:
    """Close the engine of this process; the next use makes a new one from the settings as they are then."""
    global _engine
    with _engine_lock:
        old, _engine = _engine, None
    if old is not None:
        old.close()


def _close_at_exit() -> None:
    """Close the engine when the program's other threads have ended.

    Not a daemon thread: the interpreter waits for it while threads still work. `atexit` comes too late for that.
    """
    threading.main_thread().join()
    me = threading.current_thread()
    while others := [thread for thread in threading.enumerate() if thread.is_alive() and not thread.daemon]:
        if others == [me]:
            break
        for thread in others:
            if thread is not me:
                thread.join()
    reset()


def _forked() -> None:
    """Make the child of a fork start its own engine, because the parent's threads do not exist in it."""
    global _engine, _engine_lock, _closer
    if _engine is not None:
        _engine.forget_sessions()
        _of_the_parent.append(_engine)  # kept, so that nothing of the parent's is closed
    _engine, _engine_lock, _closer = None, threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
