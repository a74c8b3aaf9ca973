"""Maps beyond one machine: over a frame of Dask, or on the workers of a Dask cluster.

Each partition is asked where it is, as a map of its own process: with the keys of that process's environment and the
servers of its settings. Answers and budgets are in the state store that all processes share, so that a partition that
is asked again, because its worker died, sends nothing for rows whose answers are stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import wait
from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from mentra_nb.chat.engine import Engine, engine
from mentra_nb.errors import ConfigurationError
from mentra_nb.event.types import TurnOrigin
from mentra_nb.providers.registry import EMBEDDED, PRESETS
from mentra_nb.rows.cluster import in_touch, stop_everywhere
from mentra_nb.rows.course import Answers, Row
from mentra_nb.rows.job import Job, Order, Whole
from mentra_nb.rows.recorded import turn
from mentra_nb.rows.tally import Tally
from mentra_nb.rows.template import as_text
from mentra_nb.store.protocols import BudgetStore

if TYPE_CHECKING:
    import pandas as pd

PARTS_PER_THREAD = 4
MOST_ROWS = 5_000
"""Rows of one part on a cluster."""


def lazy(order: Order, used: Engine, origin: TurnOrigin) -> Any:
    """Return a frame of Dask with columns of answers, which are asked for where and when it is computed.

    Raises:
        ConfigurationError: what can be seen without the rows cannot be meant.
    """
    if order.dry:
        raise ConfigurationError("dry=True needs rows that are at hand: give it data.head(1000), or data.compute()")
    frame = order.data
    job = Job(replace(order, data=frame._meta, client=None), is_part=True)
    whole = used.call(_begun, job, used, origin)
    found = frame.map_partitions(_partition, _bare(order), whole, meta=job.result(job.unanswered()))
    return found if order.client is None else order.client.persist(found)


def _bare(order: Order) -> Order:
    return replace(order, data=None, client=None)


async def _begun(job: Job, used: Engine, origin: TurnOrigin) -> Whole:
    """Return what the parts share, and leave a mark in the state store by which they know it again."""
    whole = await job.whole(used, origin)
    if whole.is_limited:
        await used.runtime.store.extend_budget("turn", _mark(whole), "calls", 1)
    return whole


def _mark(whole: Whole) -> str:
    return f"{whole.id} in parts"


async def _check_store(store: BudgetStore, whole: Whole) -> None:
    """Raise `ConfigurationError` if there is a budget and this is another state store than the one it is kept in."""
    if whole.is_limited and not (await store.count_budget("turn", _mark(whole), "calls")).extra:
        raise ConfigurationError(
            "a worker has another state store than the process that began the map, so its budget could be crossed: "
            "set MENTRA_STATE to the same postgresql:// address for all of them"
        )


def _partition(rows: Any, order: Order, whole: Whole) -> pd.DataFrame:
    """Return a partition with its answers."""
    job, answers = _asked(rows, order, whole)
    found: pd.DataFrame = job.result(answers)
    return found


def _part(rows: Any, order: Order, whole: Whole) -> tuple[list[Answers], Tally]:
    """Return the answers to a part of the rows."""
    job, answers = _asked(rows, order, whole)
    return answers, job.tally


def _asked(rows: Any, order: Order, whole: Whole) -> tuple[Job, list[Answers]]:
    """Ask about some rows of a map in this process."""
    used, job = engine(), Job(replace(order, data=rows), whole, is_part=True)
    if not len(job.source):
        return job, job.unanswered()
    used.call(_check_store, used.runtime.store, whole)
    with in_touch(job, used):
        job.start(used, whole.origin)
        try:
            return job, job.future.result()
        except KeyboardInterrupt:
            job.stop(used)
            wait([job.future])
            raise


class ClusterJob(Job):
    """A map whose rows are here, and are asked on the workers of a cluster. Equal rows are asked once."""

    def __init__(self, order: Order) -> None:
        """Check what can be checked here. Raises `ConfigurationError`."""
        super().__init__(order)
        self._client: Any = order.client
        if not all(hasattr(self._client, name) for name in ("map", "nthreads", "log_event")):
            raise ConfigurationError(f"client must be a distributed.Client, not {type(self._client).__name__}")
        if self._client.asynchronous:
            raise ConfigurationError("client must not be asynchronous: make it without asynchronous=True")
        self._tally = Tally(total=len(self.source) * len(order.models()))

    @property
    def tally(self) -> Tally:
        """What is done so far: whole parts."""
        return self._tally

    def stop(self, used: Engine) -> None:
        """Send no more requests anywhere; `future` then has the rows that are done."""
        self._is_stopped = True
        stop_everywhere(self._client, self.id)

    async def _run(self, used: Engine, origin: TurnOrigin) -> list[Answers]:
        whole = await _begun(self, used, origin)
        _check_known(whole, used)
        models = [name.partition("/")[2] for name in whole.models]
        with turn(used.runtime, self.id, self.template.text, models[0], origin, self._tally.summary) as ending:
            found = await anyio.to_thread.run_sync(self._collect, whole)
            ending.set(found, is_stopped=self._is_stopped)
        return found

    def _collect(self, whole: Whole) -> list[Answers]:
        """Give the parts to the workers, and put their answers together as they come."""
        import distributed
        import pandas as pd

        as_completed: Any = distributed.as_completed
        names, distinct = self.template.columns, dict[Any, list[int]]()
        values = self.source.values(names)
        for index, each in enumerate(values):
            distinct.setdefault(_key(each), []).append(index)
        places = list(distinct.values())
        size = self._rows_of_a_part(len(places))
        parts = [places[at : at + size] for at in range(0, len(places), size)]
        frames = [pd.DataFrame([values[same[0]] for same in part], columns=list(names), dtype=object) for part in parts]
        futures = self._client.map(_part, frames, order=_bare(self.order), whole=whole, pure=False)
        at = {future.key: number for number, future in enumerate(futures)}
        found, coming = self.unanswered(len(values)), as_completed(futures, with_results=True)
        del futures, frames  # what is collected is released
        try:
            for future, (answers, tally) in coming:
                self._put(found, answers, tally, parts[at[future.key]])
        except BaseException:
            stop_everywhere(self._client, self.id)
            raise
        return found

    def _rows_of_a_part(self, rows: int) -> int:
        threads: int = max(1, sum(self._client.nthreads().values()))
        return min(MOST_ROWS, max(1, ceil(rows / (threads * PARTS_PER_THREAD))))

    def _put(
        self, found: Sequence[Answers], answers: Sequence[Answers], tally: Tally, places: Sequence[list[int]]
    ) -> None:
        for into, part in zip(found, answers, strict=True):
            for same, cells, error in zip(places, part.cells, part.errors, strict=True):
                into.set(same, cells, error)
                repeated = len(same) - 1
                if error is None:
                    tally.done, tally.stored = tally.done + repeated, tally.stored + repeated
                else:
                    tally.failed += repeated
        self._tally.add(tally)


def _key(values: Row) -> tuple[Any, ...]:
    """Return what is equal for rows that ask the same."""
    return tuple((type(value), as_text(value)) for value in values)


def _check_known(whole: Whole, used: Engine) -> None:
    """Raise `ConfigurationError` for a server that only this process knows."""
    for provider in (name.partition("/")[0] for name in whole.models):
        if provider in used.registered() and provider not in {*PRESETS, *EMBEDDED, *used.settings.providers}:
            raise ConfigurationError(
                f"the workers of a cluster do not know '{provider}', which only this process was given: "
                f"name it in config.toml under [providers.{provider}]"
            )
