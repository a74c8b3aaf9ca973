"""Run a private PostgreSQL server for tests, in a temporary folder and on a socket in it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kits.programs import postgresql

if TYPE_CHECKING:
    from mentra_nb.store.postgres import PostgresStore

USER = "nobody"
"""The user that runs the server when the tests run as root, since PostgreSQL refuses to run as root."""


@dataclass
class Server:
    """A running server: its folder and the folder of PostgreSQL's programs."""

    folder: Path
    programs: Path
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def _as_owner(self) -> dict[str, Any]:
        return {"user": USER, "group": "nogroup"} if os.geteuid() == 0 else {}

    def run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self.programs / program, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=self.folder,
            **self._as_owner(),
        )
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"

    def start(self) -> None:
        options = f"-c listen_addresses= -k {self.folder} -c fsync=off -c max_connections=50"
        log = str(self.folder / "log")
        self.run("pg_ctl", "start", "-w", "-D", str(self.folder / "data"), "-l", log, "-o", options)

    def stop(self) -> None:
        """Stop at once, as in a crash: connections are cut."""
        self.run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", str(self.folder / "data"))

    def new_database(self) -> str:
        """Make an empty database and return its address."""
        import psycopg

        name = f"test{next(self.numbers)}"
        with psycopg.connect(self.address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
        return self.address(name)

    def address(self, database: str) -> str:
        return f"postgresql://owner@/{database}?host={self.folder}"

    def empty_store(self) -> PostgresStore:
        """Return an empty store. All of them share one database, which is faster than making a new one."""
        import psycopg

        from mentra_nb.store.postgres import PostgresStore

        with psycopg.connect(self.address("postgres"), autocommit=True) as connection:
            tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'mentra'").fetchall()
            names = ", ".join(f"mentra.{name}" for (name,) in tables if name != "schema_version")
            if names:
                connection.execute(f"TRUNCATE {names}")  # type: ignore[call-overload]
        return PostgresStore(self.address("postgres"))


@contextlib.contextmanager
def start_server() -> Iterator[Server]:
    """Start a server, and stop and delete it at the end."""
    programs = postgresql()
    assert programs is not None
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: the length of a socket's path is limited
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, USER, "nogroup")
        server = Server(folder, programs)
        server.run("initdb", "-D", str(folder / "data"), "-U", "owner", "-A", "trust", "-E", "UTF8", "-N")
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
