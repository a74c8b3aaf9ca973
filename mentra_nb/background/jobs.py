"""Start, follow and stop the background commands of a runtime. How each ended waits in the store for its agent.

A job runs on the event loop on which it was started, and ends with it: no job outlives its runtime.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from mentra_nb.errors import OperationDenied, StoreError
from mentra_nb.event import types as e
from mentra_nb.event.bus import EventBus
from mentra_nb.paths import make_private
from mentra_nb.sandbox.executor import LEFT_OUT, CommandRequest, ExecOutput, RuntimeExecutor
from mentra_nb.store.protocols import BackgroundStore
from mentra_nb.store.records import BackgroundJob, JobStatus, LeaseHolder

if TYPE_CHECKING:
    import asyncio

log: logging.Logger = logging.getLogger(__name__)

PREVIEW = 500
"""Characters of the output that an agent is given unasked."""
KEPT_FILES, KEPT_BYTES = 100, 16 << 20
"""Of so many jobs the output stays on disk, of each so many bytes."""
PREFIX = "bg-"

Report = Callable[[ExecOutput], str]
"""Says in a text what a command wrote and how it ended."""


@dataclass(eq=False, repr=False)
class _Running:
    """A job at work."""

    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    ended: anyio.Event = field(default_factory=anyio.Event)
    why: str = "its runtime has ended"
    """Why it was stopped, if it was."""


class Jobs:
    """The background jobs of one runtime, by agent. Its coroutines must be used on the runtime's event loop.

    An agent is attached before it starts jobs; what is known of its jobs is then in memory.

    Example:
        >>> jobs = runtime.jobs
        >>> jobs.of(agent.id)
        ()
    """

    def __init__(self, store: BackgroundStore, holder: LeaseHolder, folder: Path | None) -> None:
        """Use a store, as this runtime, and a `folder` for the outputs; without one they are not kept."""
        self._store, self._holder, self._folder = store, holder, folder
        self._buses: dict[str, EventBus] = {}
        self._known: defaultdict[str, dict[str, BackgroundJob]] = defaultdict(dict)
        self._running: dict[tuple[str, str], _Running] = {}
        self._waiting: set[str] = set()
        self._news: defaultdict[str, list[str]] = defaultdict(list)
        self._more_news = anyio.Event()
        self.listener: Callable[[BackgroundJob], None] | None = None
        """Called on the event loop when a job has started and when it has ended. It must not block."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._lock = anyio.Lock()

    # ---- what is known ----------------------------------------------------------------------------------------

    async def attach(self, agent_id: str, bus: EventBus, *, has_jobs: bool) -> None:
        """Read the jobs of an agent, if it `has_jobs` in the store. Their events go to `bus` from now on.

        Jobs whose process has died are closed as `interrupted`. What a turn had taken of their results, and neither
        acknowledged nor put back because its process died, waits again.
        """
        self._buses[agent_id] = bus
        if not has_jobs:
            return
        stored = await self._store.list_jobs(agent_id)
        if any(self._is_of_another(job) for job in stored):
            for job in await self._store.recover_jobs(self._holder):
                bus.emit(e.BackgroundTaskFinished(agent_id=job.agent_id, task_id=job.id, status=job.status))
            stored = await self._store.list_jobs(agent_id)
        self._known[agent_id] = {job.id: job for job in stored}
        await self._store.requeue_notifications(agent_id)
        if await self._store.count_notifications(agent_id):
            self._waiting.add(agent_id)

    def _is_of_another(self, job: BackgroundJob) -> bool:
        return job.status == "running" and job.owner.runtime_id != self._holder.runtime_id

    def of(self, agent_id: str) -> tuple[BackgroundJob, ...]:
        """Return the jobs of an agent in the order they started."""
        return tuple(self._known[agent_id].values()) if agent_id in self._known else ()

    def agents(self) -> list[str]:
        """Return the ids of the agents that have jobs."""
        return [agent_id for agent_id, jobs in self._known.items() if jobs]

    def get(self, agent_id: str, job_id: str) -> BackgroundJob:
        """Return a job. Raises `OperationDenied` if the agent has none of that id."""
        found = self._known[agent_id].get(job_id) if agent_id in self._known else None
        if found is None:
            raise OperationDenied(f"Unknown background task {job_id}")
        return found

    # ---- running ----------------------------------------------------------------------------------------------

    async def start(
        self,
        agent_id: str,
        request: CommandRequest,
        *,
        executor: RuntimeExecutor,
        limit: int,
        report: Report,
        run_id: str | None = None,
    ) -> BackgroundJob:
        """Start a command and return its job at once.

        Args:
            agent_id: The agent it is for, which was attached.
            request: The command and its limits.
            executor: Runs it.
            limit: How many jobs of the agent may run at once.
            report: Makes the text of its result.
            run_id: The turn that starts it.

        Raises:
            OperationDenied: Too many are running, or the agent was not attached.
            StoreError: It cannot be stored; nothing was started.
        """
        import asyncio

        if agent_id not in self._buses:
            raise OperationDenied("a subagent has no background tasks: it ends with its answer")
        async with self._lock:
            job = await self._stored(agent_id, request, limit)
        self._running[agent_id, job.id] = _Running()
        self._buses[agent_id].emit(
            e.BackgroundTaskStarted(agent_id=agent_id, run_id=run_id, task_id=job.id, command=job.command, cwd=job.cwd)
        )
        self._announce(job)
        task = asyncio.create_task(self._run(job, request, executor, report), name=f"background task {job.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    async def _stored(self, agent_id: str, request: CommandRequest, limit: int) -> BackgroundJob:
        """Store a new job of an agent and return it. Raises as `start`."""
        known = self._known[agent_id]
        if sum(job.status == "running" for job in known.values()) >= limit:
            raise OperationDenied(f"Background task limit of {limit} reached: wait for one to end, or stop one")
        job_id = f"{PREFIX}{1 + max((int(id.removeprefix(PREFIX)) for id in known), default=0)}"
        file = await anyio.to_thread.run_sync(self._new_file, f"{agent_id}-{job_id}.txt")
        job = BackgroundJob(
            agent_id=agent_id,
            id=job_id,
            command=request.command,
            cwd=str(request.cwd),
            output_path=str(file) if file is not None else None,
            owner=self._holder,
            started_at=time.time(),
        )
        with anyio.CancelScope(shield=True):  # a stop in the middle would leave it unknown whether it is stored
            await self._store.start_job(job)
        known[job.id] = job
        return job

    async def _run(
        self, job: BackgroundJob, request: CommandRequest, executor: RuntimeExecutor, report: Report
    ) -> None:
        running = self._running[job.agent_id, job.id]
        status: JobStatus = "interrupted"
        text = ending = None
        file = Path(job.output_path) if job.output_path is not None else None
        try:
            with running.scope:
                output = await executor.run(replace(request, transcript=file, transcript_bytes=KEPT_BYTES))
                status, text, ending = "finished" if output.success else "failed", report(output), output.ending
        except Exception as error:  # noqa: BLE001 - what a command fails with is its result
            status, text = "failed", str(error) or type(error).__name__
        finally:
            with anyio.CancelScope(shield=True):
                if ending is None:
                    text = ending = text or running.why
                add_line(file, f"[{ending}]" if ending else "")
                await self._end(job, status, shortened(text or ""))
            running.ended.set()

    async def _end(self, job: BackgroundJob, status: JobStatus, preview: str) -> None:
        """Store how a job ended, and announce it."""
        try:
            await self._store.finish_job(job.agent_id, job.id, status, output_preview=preview)
        except StoreError:
            log.exception("the end of background task %s could not be stored", job.id)
        ended = {"status": status, "output_preview": preview, "finished_at": time.time()}
        job = self._known[job.agent_id][job.id] = job.model_copy(update=ended)
        self._waiting.add(job.agent_id)
        if status != "interrupted":  # else somebody stopped it, and knows
            self._news[job.agent_id].append(job.id)
            self._more_news.set()
            self._more_news = anyio.Event()
        del self._running[job.agent_id, job.id]
        event = e.BackgroundTaskFinished(agent_id=job.agent_id, task_id=job.id, status=status)
        self._buses[job.agent_id].emit(event)
        self._announce(job)

    def _announce(self, job: BackgroundJob) -> None:
        if self.listener is not None:
            self.listener(job)

    async def stop(self, agent_id: str, job_id: str, why: str) -> BackgroundJob:
        """Stop a job that runs, with all its processes, and return it as it ended. `why` becomes its result.

        Raises:
            OperationDenied: There is no such job, or it has ended.
        """
        job, running = self.get(agent_id, job_id), self._running.get((agent_id, job_id))
        if running is None:
            raise OperationDenied(f"background task {job_id} is not running: it is {job.status}")
        running.why = why
        running.scope.cancel()
        await running.ended.wait()
        return self.get(agent_id, job_id)

    async def stop_all(self, why: str) -> list[BackgroundJob]:
        """Stop all jobs that run, and return them as they ended."""
        found = dict(self._running)
        for running in found.values():
            running.why = why
            running.scope.cancel()
        for running in found.values():
            await running.ended.wait()
        return [self.get(*key) for key in found]

    async def wait(self, agent_id: str, job_id: str) -> BackgroundJob:
        """Wait until a job has ended, and return it. Raises `OperationDenied` if there is no such job."""
        self.get(agent_id, job_id)
        if (running := self._running.get((agent_id, job_id))) is not None:
            await running.ended.wait()
        return self.get(agent_id, job_id)

    async def close(self) -> None:
        """Stop all jobs; the store must still be open."""
        await self.stop_all("its runtime has ended")

    # ---- results ----------------------------------------------------------------------------------------------

    def is_waiting(self, agent_id: str) -> bool:
        """Return whether jobs have ended whose results `take` would return."""
        return agent_id in self._waiting

    def news(self, agent_id: str) -> list[str]:
        """Return the ids of the jobs that ended by themselves, in this runtime, since `take` was last called.

        What a failed turn puts back is not among them: it waits for a prompt.
        """
        return list(self._news.get(agent_id, ()))

    async def wait_for_news(self, agent_id: str) -> list[str]:
        """Wait until there are `news`, and return them."""
        while not (found := self.news(agent_id)):
            await self._more_news.wait()
        return found

    async def take(self, agent_id: str) -> list[BackgroundJob]:
        """Take the jobs that ended since the last call, in the order they ended, to tell their agent."""
        self._waiting.discard(agent_id)
        self._news.pop(agent_id, None)
        return await self._store.take_notifications(agent_id)

    async def acknowledge(self, agent_id: str, job_ids: list[str]) -> None:
        """Forget the results that were taken: the agent has them."""
        if job_ids:
            await self._store.acknowledge_notifications(agent_id, job_ids)

    async def requeue(self, agent_id: str, job_ids: list[str]) -> None:
        """Let `take` return these results again."""
        if job_ids and await self._store.requeue_notifications(agent_id, job_ids):
            self._waiting.add(agent_id)

    # ---- files ------------------------------------------------------------------------------------------------

    def _new_file(self, name: str) -> Path | None:
        """Return where an output is to be kept, and delete old ones; `None` if none are kept."""
        if self._folder is None:
            return None
        try:
            make_private(self._folder)
            files = sorted(self._folder.glob(f"*{PREFIX}*.txt"), key=lambda file: file.stat().st_mtime)
            for file in files[: max(len(files) - KEPT_FILES + 1, 0)]:
                file.unlink(missing_ok=True)
        except OSError as error:
            log.warning("the output of background tasks is not kept: %s", error)
            return None
        return self._folder / name


def shortened(text: str) -> str:
    """Return a text in one line of at most `PREVIEW` characters: its beginning and, as more tells, its end."""
    line = " ".join(text.split()) or "(no output)"
    half = (PREVIEW - 5) // 2
    return line if len(line) <= PREVIEW else f"{line[:half]} ... {line[-half:]}"


def add_line(file: Path | None, line: str) -> None:
    """Add a line to the output of a job, if there is one."""
    if file is not None and line:
        with contextlib.suppress(OSError), file.open("a", encoding="utf-8") as output:
            output.write(f"\n{line}\n")


def output_of(job: BackgroundJob, limit: int) -> str:
    """Return what is kept of a job's output: all, or the beginning and the end of `limit` bytes. Blocks.

    Without a file it is the preview.
    """
    preview = job.output_preview or ""
    if job.output_path is None:
        return preview
    try:
        with Path(job.output_path).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            if size <= limit:
                return file.read().decode("utf-8", "replace")
            head = file.read(limit * 2 // 3)
            file.seek(size - limit // 3)
            return b"\n".join([head, LEFT_OUT.encode(), file.read()]).decode("utf-8", "replace")
    except OSError:
        return preview
