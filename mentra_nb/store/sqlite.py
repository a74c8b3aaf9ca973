"""The state store in one SQLite file, shared by all kernels of a user.

In WAL mode readers and writers do not block each other. The first call makes the file and its folder.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from mentra_nb import paths
from mentra_nb.errors import ConfigurationError, StoreError
from mentra_nb.store.migrations import STEPS, missing_steps, statements
from mentra_nb.store.sql_store import SqlStore
from mentra_nb.store.tables.memories import COLUMNS, too_slow, visible
from mentra_nb.store.transactions import Mode, Transaction, storable
from mentra_nb.store.worker import Worker

CHECKPOINT_EVERY = 100
"""Commits."""
_sync = getattr(os, "fdatasync", os.fsync)  # macOS and Windows have no fdatasync

if TYPE_CHECKING:
    from mentra_nb.store.records import MemoryQuery, MemoryRecord

T = TypeVar("T")
MATCHING_MEMORIES = f"""
    WITH found AS MATERIALIZED (
      SELECT memories_words.rowid AS number, -bm25(memories_words) AS relevance
      FROM memories_words CROSS JOIN memories ON memories.number = memories_words.rowid
      WHERE memories_words MATCH ? AND {{visible}} ORDER BY memories_words.rowid DESC LIMIT ?)
    SELECT {COLUMNS}, relevance FROM found JOIN memories USING (number)
    ORDER BY relevance DESC, number DESC LIMIT ?
"""
"""`bm25` is negative, and smaller for a better match."""
COUNTING_A_WORD = "SELECT count(*) FROM (SELECT 1 FROM memories_words WHERE memories_words MATCH ? LIMIT ?)"
MATCHES = 4_000
"""The memories that a search compares: each costs about 3 µs.

It takes the rarest words that fit. Where these are in too few memories, it takes all words and the newest memories.
"""
LOOK_EVERY = 5_000
"""Steps of SQLite's machine between two looks at the clock."""


_ELSEWHERE = "set MENTRA_HOME to a folder on another disk"
_ADVICE = {
    sqlite3.SQLITE_BUSY: "another program keeps it locked: close that program, then try again",
    sqlite3.SQLITE_IOERR: f"check the disk it is on (%mentra check), or {_ELSEWHERE}",
    sqlite3.SQLITE_FULL: f"free some disk space, or {_ELSEWHERE}",
    sqlite3.SQLITE_READONLY: "set MENTRA_HOME to a folder you can write to",
    sqlite3.SQLITE_CORRUPT: "move that file away: a new one is begun, and the record keeps what happened",
    sqlite3.SQLITE_NOTADB: "move that file away: a new one is begun, and the record keeps what happened",
}
"""What to do about an error, by its code."""


class SqliteStore(SqlStore):
    """A store in the file `path` (default: `MENTRA_STATE`, else `state.sqlite` in the home). Any event loop may use it.

    Raises:
        ConfigurationError: `path` is a PostgreSQL address.

    Example:
        >>> store = mn.SqliteStore("state.sqlite")
        >>> await store.list_agents()
        []
        >>> store.close()
    """

    failures: ClassVar[tuple[type[Exception], ...]] = (sqlite3.Error,)

    def __init__(self, path: Path | str | None = None) -> None:
        super().__init__()
        self.path: Path = Path(path) if path is not None else paths.state_file()
        if str(self.path).startswith(("postgres:", "postgresql:")):
            raise ConfigurationError("the state store is set to a PostgreSQL address: open it with open_store()")
        self._until_checkpoint = 0
        """Commits until the log is copied into the database, which waits for the disk, as does the commit after it."""
        self._disk = Worker("mentra-store-disk")
        self._numbers = itertools.count(1)
        self._counts: dict[str, int] = {}
        """In how many memories a word is, when the last of them was number `_often_at`."""
        self._often_at = 0
        self._asked = self._synced = 0
        """Numbers of the latest commit that was asked to reach the disk, and of the latest that has."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    @property
    def where(self) -> str:
        """The path of the database file."""
        return str(self.path)

    def _is_open_for_brief(self) -> bool:
        return self._connection is not None and self._until_checkpoint > 0

    def _attempt(self, work: Callable[[Transaction], T], mode: Mode) -> T:
        connection = self._connection or self._open()
        if mode == "write":
            if self._until_checkpoint <= 0:
                with suppress(sqlite3.Error):  # a disk that is full shows below
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
                self._until_checkpoint = CHECKPOINT_EVERY
            self._until_checkpoint -= 1
        try:
            connection.execute("BEGIN" if mode == "read" else "BEGIN IMMEDIATE")
            result = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk ends it by itself
                connection.execute("ROLLBACK")
            raise
        return result

    async def _reach_disk(self) -> None:
        """Sync the log, once for all commits that wait for it."""
        self._asked = number = next(self._numbers)
        await self._on_thread(self._disk, lambda: self._sync_log(number))

    def _sync_log(self, number: int) -> None:
        if number <= self._synced:
            return
        latest, log = self._asked, self.path.with_name(f"{self.path.name}-wal")
        try:
            with suppress(FileNotFoundError), log.open("r+b") as file:  # without a log all is in the database, synced
                _sync(file.fileno())
        except OSError as error:
            raise StoreError(f"the state store {self.path} could not be synced: {error.strerror}") from error
        self._synced = latest

    def close(self) -> None:
        self._disk.stop()
        super().close()

    def _forked(self) -> None:
        super()._forked()
        self._disk = Worker("mentra-store-disk")

    def _is_conflict(self, error: Exception) -> bool:
        return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY

    def _advice(self, error: Exception) -> str:
        return _ADVICE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "")

    def _index_memory(self, db: Transaction, record: MemoryRecord) -> None:
        """Nothing to do: triggers keep the index."""

    def _match_memories(
        self, db: Transaction, query: MemoryQuery, words: Sequence[str], count: int, until: float
    ) -> list[Any]:
        condition, parameters = visible(query)
        statement = MATCHING_MEMORIES.format(visible=condition)

        def matching(chosen: Sequence[str]) -> list[Any]:
            match = " OR ".join(map(_quoted, chosen))
            return db.execute(statement, (match, *parameters, MATCHES, count)).fetchall()

        found: list[Any] = []
        self._connection.set_progress_handler(lambda: time.monotonic() > until, LOOK_EVERY)
        try:
            often = {word: self._often(db, word) for word in words}
            known = sorted((word for word in words if often[word]), key=lambda word: often[word])
            sums = itertools.accumulate(often[word] for word in known)
            rare = [word for word, rows in zip(known, sums, strict=True) if rows <= MATCHES]
            found = matching(rare) if rare else []
            if len(found) < query.limit and len(rare) < len(known):
                there = {(row["agent_id"], row["record_id"]) for row in found}
                found += [row for row in matching(known) if (row["agent_id"], row["record_id"]) not in there]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            if not found:
                raise StoreError(too_slow(query)) from None
        finally:
            self._connection.set_progress_handler(None, 0)
        return found

    def _often(self, db: Transaction, word: str) -> int:
        """Return in how many memories a word is, counted up to `MATCHES` + 1, as it was when a tenth more came."""
        last = int(db.execute("SELECT coalesce(max(number), 0) AS last FROM memories").fetchone()["last"])
        if not self._often_at <= last <= 1.1 * self._often_at + 100 or len(self._counts) > 50_000:
            self._counts.clear()
            self._often_at = last
        if (count := self._counts.get(word)) is None:
            count = int(db.execute(COUNTING_A_WORD, (_quoted(word), MATCHES + 1)).fetchone()[0])
            if last > 1_000:  # counting is quick where there are few
                self._counts[word] = count
        return count

    def _open(self) -> sqlite3.Connection:
        if str(self.path) != ":memory:":
            if problem := paths.folder_problem(self.path.parent) or paths.sharing_problem(self.path):
                raise StoreError(problem)
            try:
                paths.make_private(self.path.parent)
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            except OSError as error:
                raise StoreError(f"the state store {self.path} cannot be opened: {error.strerror}") from error
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, factory=_Connection)
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA busy_timeout = 0")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute("PRAGMA synchronous = NORMAL")  # a power cut loses the latest commits, and no more
            connection.execute("PRAGMA foreign_keys = ON")
            self._migrate(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        if _version(connection) == len(STEPS):
            return
        connection.execute("BEGIN IMMEDIATE")
        version = _version(connection)  # again: another kernel may have migrated it
        for step in missing_steps(version, self.where, "set MENTRA_HOME to another folder"):
            for statement in statements(step, "sqlite"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(STEPS)}")
        connection.execute("COMMIT")


def _quoted(word: str) -> str:
    return f'"{word}"'


class _Connection(sqlite3.Connection):
    """Stores invalid Unicode, such as a file name in another encoding, with `?` for each invalid character."""

    def execute(self, statement: str, parameters: Sequence[Any] = (), /) -> sqlite3.Cursor:  # type: ignore[override]
        try:
            return super().execute(statement, parameters)
        except UnicodeEncodeError:
            return super().execute(statement, [storable(p) if isinstance(p, str) else p for p in parameters])


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
