"""One runtime on one background thread, shared by everything synchronous in this process.

The thread starts with the first call and is a daemon: it never keeps the interpreter alive.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, wait
from contextlib import ExitStack
from typing import Any, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from mentra_nb import settings as settings_module
from mentra_nb.chat.models import choose, newest_chat_model, open_provider
from mentra_nb.errors import ConfigurationError
from mentra_nb.permission.policy import RuntimePolicy
from mentra_nb.providers.base import ModelInfo, Provider
from mentra_nb.record.open import open_journal
from mentra_nb.record.read.views import refresh_database_later
from mentra_nb.record.write.journal import Journal
from mentra_nb.runtime.runtime import Runtime

T = TypeVar("T")
SETTLE_SECONDS = 2.0
"""How long `close` waits for the turns it stopped."""


class Engine:
    """The thread, its runtime and the settings. `engine()` is the process's own."""

    def __init__(self, settings: settings_module.Settings | None = None, runtime: Runtime | None = None) -> None:
        self.settings: settings_module.Settings = settings or settings_module.load()
        self.runtime: Runtime = runtime or Runtime(
            policy=RuntimePolicy.for_notebook(),
            audit=open_journal(log_text=self.settings.log_text, redact=self.settings.redact),
        )
        self.default_model: str | None = None
        """What `connect` or `replay` made the default; before it the setting, after it what keys there are."""
        self.chats: dict[str | None, Any] = {}
        """The conversations of this process, by name."""
        self.turns: set[Any] = set()
        """The turns that are running."""
        self._lock = threading.Lock()
        self._portal: BlockingPortal | None = None
        self._stack = ExitStack()

    def portal(self) -> BlockingPortal:
        with self._lock:
            if self._portal is None:
                self._portal = self._stack.enter_context(start_blocking_portal("asyncio", name="mentra-engine"))
            return self._portal

    def call(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run a coroutine function on the engine and wait for its result."""
        return self.portal().call(function, *args)

    def start(self, function: Callable[..., Awaitable[T]], *args: Any) -> Future[T]:
        """Run a coroutine function on the engine; the future is done when it is."""
        return self.portal().start_task_soon(function, *args)

    async def model(self, name: str | None) -> tuple[ModelInfo, str | None]:
        """The model for a turn, and a notice worth showing. Runs on the engine.

        Raises:
            ConfigurationError: the name, the key or the choice is not clear; the sentence says what to do.
        """
        choice = choose(name or self.default_model, self.settings, os.environ, registered=self.registered())
        if choice.provider not in self.registered():
            made = open_provider(choice.provider, self.settings, os.environ, self.runtime.http)
            self.runtime.register_provider_instance(made)
        if choice.provider == "local" and choice.model is not None:
            from mentra_nb.providers.local.gguf import problem_with

            if problem := problem_with(choice.model):
                raise ConfigurationError(problem)
        if choice.model is not None:
            return ModelInfo(id=choice.model, provider=choice.provider), choice.notice
        return newest_chat_model(choice.provider, await self.runtime.list_models(choice.provider)), choice.notice

    def registered(self) -> set[str]:
        """The ids of the runtime's providers."""
        return {descriptor.id for descriptor in self.runtime.providers()}

    def use(self, provider: Provider, model: str | None) -> None:
        """Register a provider and make it the default."""
        self.runtime.register_provider_instance(provider)
        self.default_model = f"{provider.descriptor.id}/{model}" if model else provider.descriptor.id

    def refresh_record(self) -> None:
        """Let other DuckDB clients see the record: its database file is written once there is one, in a thread."""
        if isinstance(self.runtime.audit, Journal):
            refresh_database_later(self.runtime.audit.folder)

    def close(self) -> None:
        """Stop the turns, then the thread, and close the runtime. The next call starts again."""
        turns = list(self.turns)
        for turn in turns:
            turn.stop()
        wait([turn.future for turn in turns], SETTLE_SECONDS)
        with self._lock:
            if self._portal is not None:
                try:
                    self._portal.call(self.runtime.close)
                    self._portal.call(self._portal.stop, True)
                finally:
                    self._portal = None
                    self._stack.close()


_engine: Engine | None = None
_engine_lock = threading.Lock()


def engine() -> Engine:
    """The engine of this process, made by the first call. Raises `ConfigurationError` for a bad setting."""
    global _engine
    with _engine_lock:
        if _engine is None:
            _engine = Engine()
            atexit.register(_engine.close)
        return _engine


def reset() -> None:
    """Close the engine of this process; the next use makes a new one from the settings as they are then."""
    global _engine
    with _engine_lock:
        old, _engine = _engine, None
    if old is not None:
        atexit.unregister(old.close)
        old.close()
