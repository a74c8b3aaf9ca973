"""The table of leases: one runtime at a time holds an agent. A lease ends by release, expiry, or with its process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from mentra_nb.errors import LeaseUnavailable
from mentra_nb.store.records import Lease, LeaseHolder
from mentra_nb.store.transactions import Database, Transaction, insert, marks

CLOCK_TOLERANCE = 10.0
"""Seconds by which a process may seem to have started too late because the clock was set."""


class LeaseTable(Database):
    async def acquire_lease(self, key: str, holder: LeaseHolder, ttl: float) -> Lease | None:
        def work(db: Transaction) -> Lease | None:
            now = time.time()
            _remove_stale(db, holder, now)
            row = db.execute("SELECT * FROM leases WHERE key = ?", (key,)).fetchone()
            if row is not None and row["runtime_id"] != holder.runtime_id:
                return _lease(row)
            acquired_at = now if row is None else row["acquired_at"]
            lease = {"key": key, **holder.model_dump(), "acquired_at": acquired_at, "expires_at": now + ttl}
            insert(db, "leases", lease, replace="key")
            return None

        return await self.write(work)

    async def renew_leases(self, holder: LeaseHolder, keys: Sequence[str], ttl: float) -> list[str]:
        if not keys:
            return []
        statement = f"UPDATE leases SET expires_at = ? WHERE runtime_id = ? AND key IN ({marks(keys)}) RETURNING key"

        def work(db: Transaction) -> list[str]:
            rows = db.execute(statement, [time.time() + ttl, holder.runtime_id, *keys]).fetchall()
            held = {row["key"] for row in rows}
            return [key for key in keys if key not in held]

        return await self.write(work)

    async def release_lease(self, key: str, holder: LeaseHolder) -> None:
        statement = "DELETE FROM leases WHERE key = ? AND runtime_id = ?"
        await self.write(lambda db: db.execute(statement, (key, holder.runtime_id)))

    async def list_leases(self) -> list[Lease]:
        rows = await self.read(lambda db: db.execute("SELECT * FROM leases ORDER BY key").fetchall())
        return [_lease(row) for row in rows]


def check_holder(db: Transaction, agent_id: str, runtime_id: str | None) -> None:
    """Raise `LeaseUnavailable` unless this runtime holds the agent's lease. `None` is not checked."""
    if runtime_id is None:
        return
    row = db.execute("SELECT runtime_id, host, pid FROM leases WHERE key = ?", (f"agent:{agent_id}",)).fetchone()
    if row is None:
        raise LeaseUnavailable(f"the lease on agent '{agent_id}' was lost: resume the agent to go on")
    if row["runtime_id"] != runtime_id:
        raise LeaseUnavailable(f"agent '{agent_id}' was taken over by process {row['pid']} on {row['host']}")


def _remove_stale(db: Transaction, asker: LeaseHolder, now: float) -> None:
    """Delete leases of others that have expired, or whose process on this host has ended."""
    db.execute("DELETE FROM leases WHERE expires_at <= ? AND runtime_id <> ?", (now, asker.runtime_id))
    others = db.execute(
        "SELECT DISTINCT runtime_id, pid, process_started FROM leases WHERE host = ? AND runtime_id <> ?",
        (asker.host, asker.runtime_id),
    ).fetchall()
    for other in others:
        if not is_running(other["pid"], other["process_started"]):
            db.execute("DELETE FROM leases WHERE runtime_id = ?", (other["runtime_id"],))


def is_alive(db: Transaction, owner: Any, asker: LeaseHolder, now: float) -> bool:
    """Return whether the runtime in a row still runs: on the asker's host its process, on another its leases tell."""
    if owner["host"] == asker.host:
        return is_running(owner["pid"], owner["process_started"])
    lease = "SELECT key FROM leases WHERE runtime_id = ? AND expires_at > ? LIMIT 1"
    return db.execute(lease, (owner["runtime_id"], now)).fetchone() is not None


def is_running(pid: int, started: float) -> bool:
    """Return whether the process of this host that had this pid at `started` (Unix seconds) still runs."""
    import psutil

    try:
        process = psutil.Process(pid)
        return bool(process.create_time() <= started + CLOCK_TOLERANCE and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # it runs, as another user
        return True


def _lease(row: Any) -> Lease:
    return Lease.model_validate({**dict(row), "holder": dict(row)})
