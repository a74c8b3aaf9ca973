"""The table of background jobs, and the notifications of their ends."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from mentra_nb.store.records import BackgroundJob, JobStatus, LeaseHolder
from mentra_nb.store.tables.leases import is_alive
from mentra_nb.store.tables.mailbox import Mailbox
from mentra_nb.store.transactions import Database, Transaction, insert


class JobTable(Database):
    async def start_job(self, job: BackgroundJob) -> None:
        row = {**job.model_dump(exclude={"owner"}), **job.owner.model_dump()}
        await self.write(lambda db: insert(db, "jobs", row))

    async def finish_job(
        self, agent_id: str, job_id: str, status: JobStatus, *, output_preview: str | None = None
    ) -> bool:
        statement = (
            "UPDATE jobs SET status = ?, output_preview = ?, finished_at = ?, delivery = 'pending' "
            "WHERE agent_id = ? AND id = ? AND status = 'running'"
        )
        row = (status, output_preview, time.time(), agent_id, job_id)
        return await self.write(lambda db: db.execute(statement, row).rowcount > 0)

    async def list_jobs(self, agent_id: str) -> list[BackgroundJob]:
        statement = "SELECT * FROM jobs WHERE agent_id = ? ORDER BY started_at, id"
        rows = await self.read(lambda db: db.execute(statement, (agent_id,)).fetchall())
        return [_job(row) for row in rows]

    async def take_notifications(self, agent_id: str) -> list[BackgroundJob]:
        rows = await self.write(_notifications(agent_id).take)
        return [_job(row) for row in sorted(rows, key=lambda row: (row["finished_at"], row["id"]))]

    async def acknowledge_notifications(self, agent_id: str, job_ids: Collection[str]) -> None:
        await self.write(lambda db: _notifications(agent_id).settle(db, "acknowledged", job_ids))

    async def requeue_notifications(self, agent_id: str, job_ids: Collection[str] | None = None) -> int:
        return await self.write(lambda db: _notifications(agent_id).settle(db, "pending", job_ids))

    async def count_notifications(self, agent_id: str) -> int:
        return await self.read(_notifications(agent_id).count)

    async def recover_jobs(self, asker: LeaseHolder) -> list[BackgroundJob]:
        owners = (
            "SELECT DISTINCT runtime_id, host, pid, process_started FROM jobs "
            "WHERE status = 'running' AND runtime_id <> ?"
        )
        interrupt = (
            "UPDATE jobs SET status = 'interrupted', finished_at = ?, delivery = 'pending' "
            "WHERE status = 'running' AND runtime_id = ? RETURNING *"
        )

        def work(db: Transaction) -> list[Any]:
            now, recovered = time.time(), []
            for owner in db.execute(owners, (asker.runtime_id,)).fetchall():
                if not is_alive(db, owner, asker, now):
                    recovered += db.execute(interrupt, (now, owner["runtime_id"])).fetchall()
            return recovered

        jobs = [_job(row) for row in await self.write(work)]
        return sorted(jobs, key=lambda job: (job.started_at, job.id))


def _notifications(agent_id: str) -> Mailbox:
    return Mailbox("jobs", ("agent_id",), (agent_id,))


def _job(row: Any) -> BackgroundJob:
    return BackgroundJob.model_validate({**dict(row), "owner": dict(row)})
