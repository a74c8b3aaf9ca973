"""The state store in PostgreSQL, for kernels of several machines: `MENTRA_STATE=postgresql://…`, extra `lake`.

Its tables are in the schema `mentra`, made with the first call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import DictRow, dict_row

from mentra_nb.errors import ConfigurationError, StoreError
from mentra_nb.store.migrations import STEPS, missing_steps, statements
from mentra_nb.store.sql_store import SqlStore
from mentra_nb.store.tables.memories import COLUMNS, too_slow, visible
from mentra_nb.store.tables.ranking import all_words
from mentra_nb.store.transactions import LOCK_TIMEOUT, Mode, Transaction, storable
from mentra_nb.who import person

if TYPE_CHECKING:
    from mentra_nb.store.records import MemoryQuery, MemoryRecord

T = TypeVar("T")

DEFAULTS = {"connect_timeout": "10", "tcp_user_timeout": "15000", "application_name": "mentra-nb"}
"""Connection options that an address may override: timeouts in seconds and in milliseconds."""

WRITE = "BEGIN ISOLATION LEVEL SERIALIZABLE"
READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

DIALECT = (
    (" INTEGER PRIMARY KEY", " BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"),
    (" INTEGER", " BIGINT"),
    (" REAL", " DOUBLE PRECISION"),
    (" TEXT", ' TEXT COLLATE "C"'),
    (", WITHOUT ROWID", ""),
    (" STRICT", ""),
)
"""Replacements from SQLite's dialect to this one. Text is compared by its bytes, as in SQLite."""

MATCHING_MEMORIES = f"""
    WITH found AS MATERIALIZED (
      SELECT number, words, length(words)::float AS size FROM memories WHERE {{visible}} AND words @@ ?::tsquery),
    usual AS (SELECT avg(size) AS size FROM found),
    matched AS (
      SELECT number, lexeme, 2.2 * cardinality(positions)
        / (cardinality(positions) + 0.3 + 0.9 * found.size / usual.size) AS often
      FROM found, usual, unnest(words) WHERE lexeme = ANY(?)),
    everything AS (SELECT count(*)::float AS n FROM memories WHERE {{visible}}),
    weights AS (
      SELECT lexeme, ln(1 + ((SELECT n FROM everything) - count(*) + 0.5) / (count(*) + 0.5)) AS rare
      FROM matched GROUP BY lexeme),
    best AS (
      SELECT number, sum(often * rare) AS relevance FROM matched JOIN weights USING (lexeme)
      GROUP BY number ORDER BY relevance DESC, number DESC LIMIT ?)
    SELECT {COLUMNS}, relevance FROM best JOIN memories USING (number) ORDER BY relevance DESC, number DESC
"""
"""As in `bm25`, a word weighs more the more often this memory has it for its length, and the fewer memories have it."""

MAX_INDEXED = 400_000
"""Characters of a memory that are indexed: the limit of one index entry."""


class PostgresStore(SqlStore):
    """A store at a `postgresql://` address. Any event loop may use it; a lost connection is opened again.

    Raises:
        ConfigurationError: PostgreSQL does not understand the address.
    """

    failures: ClassVar[tuple[type[Exception], ...]] = (psycopg.Error,)
    also_forgotten: ClassVar[str] = ", words = NULL"

    def __init__(self, url: str) -> None:
        super().__init__()
        try:
            self._address: dict[str, Any] = {**DEFAULTS, **conninfo_to_dict(url)}
        except psycopg.ProgrammingError:  # its text may show the password
            raise ConfigurationError(
                "this is not a PostgreSQL address: write postgresql://user:password@host:5432/database"
            ) from None

    def __repr__(self) -> str:
        return f"PostgresStore({self.where!r})"

    @property
    def whose(self) -> str:
        """The user of the operating system at this process."""
        return person().os_user

    @property
    def where(self) -> str:
        return f"{self._address.get('host', '')}/{self._address.get('dbname', '')}"

    def _attempt(self, work: Callable[[Transaction], T], mode: Mode) -> T:
        connection = self._begin(READ if mode == "read" else WRITE)
        try:
            result = work(_Transaction(connection))
            connection.execute("COMMIT")
        except BaseException:
            if not connection.closed:
                connection.execute("ROLLBACK")
            raise
        return result

    def _is_conflict(self, error: Exception) -> bool:
        return isinstance(error, (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected))

    def _begin(self, statement: str) -> psycopg.Connection[DictRow]:
        """Begin a transaction. A lost connection is replaced: nothing has been sent in this transaction yet."""
        connection: psycopg.Connection[DictRow] | None = self._connection
        if connection is not None:
            try:
                connection.execute(statement)
            except psycopg.OperationalError:
                connection.close()
            else:
                return connection
        self._connection = connection = self._open()
        connection.execute(statement)
        return connection

    def _open(self) -> psycopg.Connection[DictRow]:
        connection = psycopg.connect(make_conninfo(**self._address), autocommit=True, row_factory=dict_row)
        try:
            connection.execute("SET search_path = mentra")
            connection.execute("SET jit = off")  # compiling would take longer than any of these statements
            connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT:.0f}s'")
            with connection.transaction():
                self._migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self, connection: psycopg.Connection[DictRow]) -> None:
        if _version(connection) == len(STEPS):
            return
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('mentra schema'))")
        version = _version(connection)  # again: another kernel may have migrated it
        missing = missing_steps(version, self.where, "set MENTRA_STATE to another database")
        if version == 0:
            connection.execute("CREATE SCHEMA IF NOT EXISTS mentra")
            connection.execute("CREATE TABLE schema_version(version BIGINT NOT NULL)")
            connection.execute("INSERT INTO schema_version VALUES (0)")
        for step in missing:
            for statement in statements(step, "postgresql"):
                for sqlite, here in DIALECT:
                    statement = statement.replace(sqlite, here)
                connection.execute(statement)
        connection.execute("UPDATE schema_version SET version = %s", (len(STEPS),))

    def _index_memory(self, db: Transaction, record: MemoryRecord) -> None:
        places: dict[str, list[str]] = {}
        for place, word in enumerate(all_words(record.content[:MAX_INDEXED]), 1):
            places.setdefault(word[:200], []).append(str(place))
        vector = " ".join(f"'{word}':{','.join(at[:200])}" for word, at in places.items())[:MAX_INDEXED]
        db.execute(
            "UPDATE memories SET words = ?::tsvector WHERE agent_id = ? AND record_id = ?",
            (vector, record.agent_id, record.record_id),
        )

    def _match_memories(
        self, db: Transaction, query: MemoryQuery, words: Sequence[str], count: int, until: float
    ) -> list[Any]:
        left = int((until - time.monotonic()) * 1000)
        if left <= 0:
            raise StoreError(too_slow(query))
        db.execute(f"SET LOCAL statement_timeout = {left}")
        condition, parameters = visible(query)
        wanted = " | ".join(f"'{word}'" for word in words)
        statement = MATCHING_MEMORIES.format(visible=condition)
        try:
            return db.execute(statement, (*parameters, wanted, list(words), *parameters, count)).fetchall()
        except psycopg.errors.QueryCanceled:
            raise StoreError(too_slow(query)) from None


class _Transaction:
    """Runs statements that have `?` for parameters. Characters that PostgreSQL cannot store are replaced."""

    def __init__(self, connection: psycopg.Connection[DictRow]) -> None:
        self._connection = connection

    def execute(self, statement: str, parameters: Sequence[Any] = (), /) -> psycopg.Cursor[DictRow]:
        return self._connection.execute(_in_psycopg(statement), [_storable(value) for value in parameters])


@lru_cache(maxsize=256)
def _in_psycopg(statement: str) -> str:
    return statement.replace("%", "%%").replace("?", "%s")


def _storable(value: Any) -> Any:
    return storable(value).replace("\0", "\ufffd") if isinstance(value, str) else value


def _version(connection: psycopg.Connection[DictRow]) -> int:
    table = "SELECT FROM pg_tables WHERE schemaname = 'mentra' AND tablename = 'schema_version'"
    if connection.execute(table).fetchone() is None:
        return 0
    row = connection.execute("SELECT version FROM schema_version").fetchone()
    return int(row["version"]) if row is not None else 0
