"""What the processes of a Dask cluster tell each other about maps: a provider's refusals, and *Stop*.

Both are events of Dask's own, which the scheduler passes on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from mentra_nb.chat.engine import Engine, engine
from mentra_nb.rows.pace import pace_of, tell_of_cuts

if TYPE_CHECKING:
    from distributed import Client

    from mentra_nb.rows.job import Job

REFUSED = "mentra-refused"
"""The topic of refusals: which process was refused by which provider, and what `Pace.heard` is told."""
STOPPED = "mentra-stopped"
"""The topic of maps that are stopped, by their ids."""


class _Hearing:
    """What one process hears of the others."""

    def __init__(self, client: Any) -> None:
        self.jobs: dict[int, Job] = {}
        """The parts of maps that are asked here."""
        client.subscribe_topic(REFUSED, self._refused)
        client.subscribe_topic(STOPPED, self._stopped)

    def _refused(self, event: Any) -> None:
        runtime_id, provider, age, wait = event[1]
        used = engine()
        if runtime_id != used.runtime.id:
            used.portal().start_task_soon(_cut, used, provider, age, wait)

    def _stopped(self, event: Any) -> None:
        for job in list(self.jobs.values()):
            if job.id == event[1]:
                job.stop(engine())


async def _cut(used: Engine, provider: str, age: float, wait: float) -> None:
    pace_of(used.runtime, provider).heard(age, wait)


_hearings: WeakKeyDictionary[Client, _Hearing] = WeakKeyDictionary()
_lock = threading.Lock()


@contextmanager
def in_touch(job: Job, used: Engine) -> Iterator[None]:
    """While inside, tell other processes of refusals here, hear of theirs, and stop the job when its map is stopped.

    Does nothing in a process that is no worker of a cluster.
    """
    try:
        from distributed import get_client, get_worker

        worker: Any = get_worker()
        client: Any = get_client()
    except (ImportError, ValueError):
        yield
        return
    with _lock:
        if (hearing := _hearings.get(client)) is None:
            hearing = _hearings[client] = _Hearing(client)
    tell_of_cuts(used.runtime, partial(_tell, worker, used.runtime.id))
    hearing.jobs[id(job)] = job
    try:
        if any(map_id == job.id for _, map_id in client.get_events(STOPPED)):
            job.stop(used)
        yield
    finally:
        del hearing.jobs[id(job)]


def _tell(worker: Any, runtime_id: str, provider: str, age: float, wait: float) -> None:
    worker.log_event(REFUSED, [runtime_id, provider, age, wait])


def stop_everywhere(client: Client, map_id: str) -> None:
    """Let all processes stop the parts of a map that they ask now or begin later."""
    client.log_event(STOPPED, map_id)
