"""Run transactions one after the other on the store's own thread; helpers for rows and JSON.

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
from functools import lru_cache
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from mentra_nb.errors import StoreError
from mentra_nb.store.worker import Worker

T = TypeVar("T")

Mode = Literal["read", "write", "sync"]
"""How a transaction is run. `sync` is a write that survives a power cut when it returns."""

LOCK_TIMEOUT = 5.0
"""Seconds for which a transaction that conflicts with others is retried."""


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

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` on a snapshot of the database and return its result. Writers are not blocked."""
        return await self._on_thread(work, "read")

    async def write(self, work: Callable[[Transaction], T], *, sync: bool = False) -> T:
        """Run `work` in one transaction and return its result. It commits even if the caller is cancelled meanwhile.

        What it wrote survives the death of the process; with `sync` it survives a power cut too, and so does all that
        was written before. `work` runs again if another transaction conflicted, so it must have no other effects.

        Raises:
            StoreError: The engine failed, or conflicts went on for `LOCK_TIMEOUT` seconds.
        """
        return await self._on_thread(work, "sync" if sync else "write")

    async def _on_thread(self, work: Callable[[Transaction], T], mode: Mode) -> T:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def job() -> None:
            settle: Callable[[Any], None]
            outcome: Any
            try:
                settle, outcome = answer.set_result, self._transact(work, mode)
            except BaseException as error:  # noqa: BLE001  # the caller raises it
                settle, outcome = answer.set_exception, error
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(lambda: None if answer.done() else settle(outcome))  # done: cancelled

        self._worker.put(job)
        return await answer

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
