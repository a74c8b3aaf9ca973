"""Run transactions one after the other, brief ones on the caller's thread; helpers for rows and JSON.

The statements are in `tables`, in SQL that every engine understands.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from mentra_nb.errors import StoreError
from mentra_nb.store.worker import Worker

T = TypeVar("T")

Mode = Literal["read", "write"]

LOCK_TIMEOUT = 5.0
"""Seconds for which a transaction that conflicts with others is retried."""


SHORT = 1 << 16
"""Characters. A transaction that stores fewer, and finds its rows by their keys, is brief."""


class Rows(Protocol):
    """The result of a statement."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...


class Transaction(Protocol):
    """The database as a piece of work sees it. Parameters are written `?`; rows are read by column name."""

    def execute(self, statement: str, parameters: Sequence[Any] = (), /) -> Rows: ...


class Database(ABC):
    """One connection, opened by the first call. Any thread and event loop may use it, also after a fork."""

    def __init__(self) -> None:
        self._connection: Any = None
        self._worker = Worker("mentra-store")
        _open_databases.add(self)

    async def read(self, work: Callable[[Transaction], T], *, brief: bool = False) -> T:
        """Run `work` on a snapshot of the database and return its result. Writers are not blocked.

        Args:
            brief: It takes so little time that it may keep an event loop waiting, if it need not wait itself.
        """
        return await self._run(work, "read", brief)

    async def write(self, work: Callable[[Transaction], T], *, sync: bool = False, brief: bool = False) -> T:
        """Run `work` in one transaction and return its result. It commits even if the caller is cancelled meanwhile.

        What it wrote survives the death of the process; with `sync` it survives a power cut too, and so does all that
        was written before. `work` runs again if another transaction conflicted, so it must have no other effects.
        `brief` as for `read`.

        Raises:
            StoreError: The engine failed, or conflicts went on for `LOCK_TIMEOUT` seconds.
        """
        result = await self._run(work, "write", brief)
        if sync:
            await self._reach_disk()
        return result

    async def _run(self, work: Callable[[Transaction], T], mode: Mode, brief: bool) -> T:
        done: list[T] = []
        if brief and self._is_open_for_brief():
            with suppress(*self.failures):  # in the other thread it waits for what is in the way, or says what is wrong
                self._worker.run_here(lambda: done.append(self._attempt(work, mode)))
        if not done:
            return await self._on_thread(self._worker, lambda: self._transact(work, mode))
        await asyncio.sleep(0)  # a turn that never waits for anything else lets others go on too, and can be stopped
        return done[0]

    async def _on_thread(self, worker: Worker, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def job() -> Callable[[], None]:
            try:
                return partial(answer.set_result, work())
            except BaseException as error:  # noqa: BLE001  # the caller raises it
                return partial(answer.set_exception, error)

        def tell(settle: Callable[[], None]) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(lambda: None if answer.done() else settle())  # done: cancelled

        worker.put(job, tell)
        return await answer

    def _is_open_for_brief(self) -> bool:
        """Return whether a brief transaction may be run on the thread of an event loop now."""
        return False

    async def _reach_disk(self) -> None:
        """Wait until all that was committed survives a power cut."""
        return  # as soon as it is committed, by default

    def _transact(self, work: Callable[[Transaction], T], mode: Mode) -> T:
        until = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                return self._attempt(work, mode)
            except self.failures as error:
                if not self._is_conflict(error) or time.monotonic() > until:
                    text = f"the state store {self.where} failed: {str(error).strip()}"
                    raise StoreError("; ".join(filter(None, (text, self._advice(error))))) from error
            time.sleep(random.uniform(0.001, 0.01))  # noqa: S311  # let the other transaction finish

    failures: ClassVar[tuple[type[Exception], ...]]
    """The exceptions of the engine."""

    @property
    @abstractmethod
    def where(self) -> str:
        """The name of the database, for messages."""

    @abstractmethod
    def _attempt(self, work: Callable[[Transaction], T], mode: Mode) -> T:
        """Run `work` in one transaction: commit, or roll back and raise."""

    @abstractmethod
    def _is_conflict(self, error: Exception) -> bool:
        """Return whether another transaction caused this failure, so that a retry may succeed."""

    def _advice(self, error: Exception) -> str:
        """Return what a person can do about a failure; empty if that is not known."""
        return ""

    def close(self) -> None:
        """Finish the pending transactions and close the connection. The next call opens it again."""

        def shut() -> None:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

        self._worker.stop(last=shut)

    def _forked(self) -> None:
        _inherited.append(self._connection)  # kept open: closing it here would close the parent's
        self._connection, self._worker = None, Worker("mentra-store")


_open_databases: weakref.WeakSet[Database] = weakref.WeakSet()
_inherited: list[Any] = []


def _forked() -> None:
    for database in _open_databases:
        database._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


# ---- rows ---------------------------------------------------------------------------------------------------------


def insert(db: Transaction, table: str, row: Mapping[str, Any], *, replace: str = "") -> None:
    """Insert a row.

    Args:
        replace: Columns, as `a, b`: an existing row with the same values in them is updated instead.
    """
    values = [int(value) if isinstance(value, bool) else value for value in row.values()]
    db.execute(_insertion(table, tuple(row), replace), values)


@lru_cache(maxsize=64)
def _insertion(table: str, columns: tuple[str, ...], replace: str) -> str:
    statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks(columns)})"
    if replace:
        changed = [column for column in columns if column not in replace.split(", ")]
        statement += f" ON CONFLICT ({replace}) DO UPDATE SET {', '.join(f'{c} = excluded.{c}' for c in changed)}"
    return statement


def marks(values: Sequence[Any]) -> str:
    """Return one `?` per value, joined by commas."""
    return ", ".join("?" * len(values))


def to_json(value: Any) -> str:
    """Return compact JSON of a record or of plain data. A lone surrogate becomes `?`."""
    if isinstance(value, BaseModel):
        try:
            return value.model_dump_json()
        except PydanticSerializationError:
            value = value.model_dump(mode="json")
    return storable(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str))


def storable(text: str) -> str:
    """Return the text with `?` for every character that UTF-8 cannot encode."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
