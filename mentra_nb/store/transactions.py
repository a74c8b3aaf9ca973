"""How the statements of a store reach its database: transactions, one after the other, on a thread of the store's own.

What the statements say is in the files beside this one, once, in SQL that every engine understands.
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
from functools import lru_cache
from typing import Any, ClassVar, Protocol, TypeVar

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from mentra_nb.errors import StoreError
from mentra_nb.store.worker import Worker

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds in which a transaction that others are in the way of is tried again."""


class Rows(Protocol):
    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...


class Transaction(Protocol):
    """What a piece of work is given. Parameters are `?`, columns are read by name."""

    def execute(self, statement: str, parameters: Sequence[Any] = (), /) -> Rows: ...


class Database(ABC):
    """One connection, opened by the first call. Safe to use from any thread and event loop, and after a fork."""

    def __init__(self) -> None:
        self._connection: Any = None
        self._worker = Worker("mentra-store")
        _open_databases.add(self)

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` on one state of the database, without keeping writers waiting."""
        return await self._on_thread(work, False)

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in one transaction. It commits even if the caller is cancelled meanwhile.

        When somebody else came between, `work` is run again.
        """
        return await self._on_thread(work, True)

    async def _on_thread(self, work: Callable[[Transaction], T], writes: bool) -> T:
        return await asyncio.shield(asyncio.wrap_future(self._worker.submit(self._transact, work, writes)))

    def _transact(self, work: Callable[[Transaction], T], writes: bool) -> T:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return self._attempt(work, writes)
            except self.failures as error:
                if not self._lost_to_another(error) or time.monotonic() > until:
                    raise StoreError(f"the state store {self.where} failed: {str(error).strip()}") from error
            time.sleep(random.uniform(0.001, 0.01))  # noqa: S311  # whoever won goes first

    failures: ClassVar[tuple[type[Exception], ...]]
    """What the engine raises."""

    @property
    @abstractmethod
    def where(self) -> str:
        """The database by name, for messages."""

    @abstractmethod
    def _attempt(self, work: Callable[[Transaction], T], writes: bool) -> T:
        """Begin, work, and commit; or roll back."""

    @abstractmethod
    def _lost_to_another(self, error: Exception) -> bool:
        """Whether a failure came of somebody else being at the database, and nothing was written."""

    def close(self) -> None:
        """Finish what was asked for and close the connection. The next call opens it again."""

        def shut() -> None:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

        self._worker.stop(last=shut)

    def _forked(self) -> None:
        _of_the_parent.append(self._connection)  # closing it here would disturb the parent's
        self._connection, self._worker = None, Worker("mentra-store")


_open_databases: weakref.WeakSet[Database] = weakref.WeakSet()
_of_the_parent: list[Any] = []


def _forked() -> None:
    for database in _open_databases:
        database._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


# ---- rows ---------------------------------------------------------------------------------------------------------


def insert(db: Transaction, table: str, row: Mapping[str, Any], *, replace: str = "") -> None:
    """Add a row. One that has the same values in the `replace` columns (`a, b`) already becomes this one."""
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
    """As many question marks as there are values."""
    return ", ".join("?" * len(values))


def to_json(value: Any) -> str:
    """Compact JSON of a record or of plain data; half a surrogate pair becomes `?`."""
    if isinstance(value, BaseModel):
        try:
            return value.model_dump_json()
        except PydanticSerializationError:
            value = value.model_dump(mode="json")
    return storable(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str))


def storable(text: str) -> str:
    """The text without what UTF-8 cannot say."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
