"""The rows of a map that a provider answers in batches, at half the price: handed in, waited for, and read.

A batch is stored before it is handed in, and forgotten once its results are. So one that a process left behind is found
by its rows: the next map over them waits for it and pays nothing. Who reads a batch holds its lease.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import NamedTuple

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from mentra_nb.agent.retrying import asked_wait, most_retries, retry_delay
from mentra_nb.amounts import Unit
from mentra_nb.errors import (
    BudgetSpent,
    HttpError,
    InvalidRequest,
    MentraError,
    ProviderError,
    StoreError,
    UnsupportedCapability,
)
from mentra_nb.ids import new_id
from mentra_nb.pricing import BATCH_SHARE
from mentra_nb.providers.batch import MOST_BYTES, Batches, BatchStatus
from mentra_nb.rows.asking import Outcome
from mentra_nb.rows.course import NO_ROWS_LEFT, Asked, Course, no_batches
from mentra_nb.rows.reading import Reading
from mentra_nb.store.records import LeaseHolder
from mentra_nb.store.row_answers import RowBatch

FIRST_LOOK, LONGEST_LOOK = 2.0, 60.0
"""Seconds between two looks at a batch; the first and the longest time, each half as long again as the one before."""
LONGEST_BATCH = 50 * 3600.0
"""Seconds after which a provider that does not say that a batch has ended is asked no more: each ends it before."""
LEASE = 600.0
"""Seconds for which a batch is held. It is renewed at each look."""
STOP_TIME = 5.0
"""Seconds in which a batch of a stopped map must be cancelled."""
LEAST_CUT = 100
"""Rows that are prepared at once at least, where the budget allows only few in one batch."""
SUBMITTED_AT_MOST = 5
"""Times that a batch is handed in, if each time it turns out that it did not arrive."""


class _Cut(NamedTuple):
    """Rows that fit into one batch, what each may use at most, and each as it is handed in."""

    rows: list[Asked]
    most: list[dict[Unit, int]]
    lines: list[bytes]


class Batching:
    """The rows of one course that go to the provider in batches."""

    def __init__(self, course: Course, batches: Batches) -> None:
        self._course, self._batches = course, batches
        self._store, self._tally = course.of.runtime.store, course.of.tally
        self._holder = LeaseHolder.here(new_id("reader"))
        self._again: list[Asked] = []
        """Rows of batches that others left behind, which these did not answer."""
        self._singly: list[Asked] = []
        self._under_way = 0
        self._ended = anyio.Event()
        self._most_rows = batches.most_requests
        self._why = BudgetSpent(NO_ROWS_LEFT)

    async def run(self, asked: Sequence[Asked]) -> list[Asked]:
        """Hand in rows, and wait for their answers. Return those that are to be asked one by one."""
        left = {each.digest: each for each in asked}
        found = await self._store.load_row_batches(self._course.asker.name)
        async with anyio.create_task_group() as group:
            for batch in (each for each in found if not left.keys().isdisjoint(each.digests)):
                taken = [left.pop(digest) for digest in batch.digests if digest in left]
                group.start_soon(self._take_over, batch, [each._replace(is_counted=True) for each in taken])
            await self._hand_in(list(left.values()), group)
        if self._again:
            async with anyio.create_task_group() as group:
                await self._hand_in(self._again, group)
        return self._singly

    # ---- handing in -------------------------------------------------------------------------------------------------

    async def _hand_in(self, rows: Sequence[Asked], group: TaskGroup) -> None:
        """Hand in rows, as many at once as the provider takes and the budgets allow."""
        course, left, cut = self._course, deque(rows), _Cut([], [], [])
        try:
            while left and course.over is None:
                cut = await self._cut(left)
                number, reservation = await self._reserve(cut)
                left.extendleft(reversed(cut.rows[number:]))
                cut = _Cut(cut.rows[:number], cut.most[:number], cut.lines[:number])
                if cut.rows:
                    await self._begin(cut, reservation, group)
                elif left and course.over is None:
                    await self._wait_for_room()
        except UnsupportedCapability:
            self._tally.note = no_batches(course.asker.provider.descriptor.id)
            self._singly += [*cut.rows, *left]
        except MentraError as error:
            course.over = course.over or error

    async def _cut(self, left: deque[Asked]) -> _Cut:
        """Take the first rows, as many as one batch may have. One that cannot be asked fails here."""
        cut, size, asker, course = _Cut([], [], []), 0, self._course.asker, self._course
        most_rows = min(len(left), self._batches.most_requests, self._most_rows)
        first = deque(await self._counted([left.popleft() for _ in range(most_rows)], left))
        if not first:
            course.over = BudgetSpent(NO_ROWS_LEFT)
        for number in range(len(first)):
            if number % 100 == 0:
                await anyio.lowlevel.checkpoint()
            each = first[0]
            try:
                prompt = await asker.prompt(dict(zip(asker.template.columns, each.values, strict=True)))
                request = asker.request(prompt)
                line = self._batches.line(each.digest, request)
            except MentraError as error:
                course.settle(first.popleft().rows, Outcome(error=error))
                continue
            size += len(line) + 1
            if cut.rows and size > MOST_BYTES:
                break
            cut.rows.append(first.popleft())
            cut.most.append(half(asker.most(request)))
            cut.lines.append(line)
        left.extendleft(reversed(first))
        return cut

    async def _counted(self, rows: list[Asked], left: deque[Asked]) -> list[Asked]:
        """Return those of the rows that the budget of rows has, and put the others back. Raises `StoreError`."""
        new = [place for place, each in enumerate(rows) if not each.is_counted]
        allowed = await self._course.of.take_rows(len(new))
        if allowed < len(new):
            left.extendleft(reversed(rows[new[allowed] :]))
            rows = rows[: new[allowed]]
        return [each._replace(is_counted=True) for each in rows]

    async def _reserve(self, cut: _Cut) -> tuple[int, str | None]:
        """Reserve for as many of the first rows as fit into the budgets. Return their number, and the reservation."""
        if not cut.rows or not cut.most[0]:
            return len(cut.rows), None
        low, high, number = 0, len(cut.rows) + 1, len(cut.rows)
        while high - low > 1:
            try:
                id = await self._course.asker.meter.reserve_for_long(total(cut.most[:number]))
            except BudgetSpent as error:
                high, self._why = number, error
            else:
                if high - number == 1:
                    return number, id
                await self._store.settle_budget(id, {})
                low = number
            number = (low + high) // 2
        self._most_rows = max(4 * low, LEAST_CUT)
        if not low:
            return 0, None
        return low, await self._course.asker.meter.reserve_for_long(total(cut.most[:low]))

    async def _wait_for_room(self) -> None:
        """Wait until a batch has ended, as it frees some of the budget. Raises `BudgetSpent` if none is under way."""
        if not self._under_way:
            raise self._why
        await self._ended.wait()

    async def _begin(self, cut: _Cut, reservation: str | None, group: TaskGroup) -> None:
        """Hand in one batch and begin to wait for it. Raises `ProviderError` or `StoreError`."""
        digests = [each.digest for each in cut.rows]
        batch = RowBatch(new_id("batch"), self._course.asker.name, digests, time.time(), reservation=reservation)
        await self._store.acquire_lease(lease_of(batch), self._holder, LEASE)
        try:
            await self._store.save_row_batch(batch)
            async with self._cancelled_with_map(batch):
                batch = batch._replace(provider_batch=await self._submit(batch, cut.lines))
                await self._store.save_row_batch(batch)
        except BaseException as error:
            if isinstance(error, ProviderError) and not may_have_arrived(error):
                await self._forget(batch, {})
            await self._release(batch)
            raise
        most = dict(zip(digests, cut.most, strict=True))
        self._under_way += 1
        group.start_soon(self._await, batch, Reading(self._course, batch, cut.rows, most, is_own=True))

    async def _submit(self, batch: RowBatch, lines: Sequence[bytes]) -> str:
        """Hand in a batch and return the provider's id. Where its answer is lost, look whether it arrived first."""
        options = self._course.asker.options
        for number in count(1):
            try:
                return await self._batches.submit(batch.key, self._course.asker.model, lines)
            except UnsupportedCapability:
                raise
            except ProviderError as error:
                if not error.is_transient or number > min(most_retries(error, options), SUBMITTED_AT_MOST):
                    raise
                await anyio.sleep(retry_delay(error, number, random.random(), options))  # noqa: S311
                if may_have_arrived(error) and (found := await self._find(batch)) is not None:
                    return found
        raise AssertionError("unreachable")

    async def _find(self, batch: RowBatch) -> str | None:
        """Return the provider's id of a batch of which it is not known whether it arrived. Raises `ProviderError`."""
        others = await self._store.load_row_batches(batch.model)
        known = {each.provider_batch for each in others if each.provider_batch}
        options = self._course.asker.options
        for number in count(1):
            try:
                return await self._batches.find(batch.key, batch.digests, batch.made_at, known)
            except ProviderError as error:
                if not error.is_transient or number > most_retries(error, options):
                    raise
                await anyio.sleep(retry_delay(error, number, random.random(), options))  # noqa: S311
        raise AssertionError("unreachable")

    # ---- waiting and reading ----------------------------------------------------------------------------------------

    async def _take_over(self, batch: RowBatch, rows: list[Asked]) -> None:
        """Wait for a batch that was handed in earlier, by this process or another one."""
        try:
            held = await self._hold(batch)
            if held is None:  # another process has read it meanwhile
                self._again += await self._course.without_stored(rows)
                return
            if held.provider_batch is None:
                held = held._replace(provider_batch=await self._find(held))
                if held.provider_batch is None:
                    await self._forget(held, {})
                    self._again += rows
                    return
                await self._store.save_row_batch(held)
            self._under_way += 1
            await self._await(held, Reading(self._course, held, rows, {}, is_own=False))
        except MentraError as error:
            self._course.over = self._course.over or error
        finally:
            await self._release(batch)

    async def _hold(self, batch: RowBatch) -> RowBatch | None:
        """Wait until no one else holds a batch. Return it as it is then, or `None` if it is not stored any more."""
        while await self._store.acquire_lease(lease_of(batch), self._holder, LEASE) is not None:
            self._tally.batches[batch.key] = "waiting for a batch that another map reads"
            await anyio.sleep(FIRST_LOOK)
        self._tally.batches.pop(batch.key, None)
        stored = await self._store.load_row_batches(batch.model)
        return next((each for each in stored if each.key == batch.key), None)

    async def _await(self, batch: RowBatch, reading: Reading) -> None:
        """Wait for a batch and read its results."""
        try:
            async with self._cancelled_with_map(batch):
                status = await self._watch(batch)
            if status.ending == "failed":
                reading.fail(ProviderError(f"the batch failed: {status.problem or 'the provider does not say why'}"))
            await self._read(status, reading)
            await self._forget(batch, reading.spent)
            self._again += reading.again
            self._singly += reading.singly
        except MentraError as error:
            if isinstance(error, HttpError) and error.status in (404, 410) and not reading.is_own:
                await self._forget(batch, None)  # too old: the provider has forgotten it
                self._again += reading.unread()
            else:
                self._course.over = self._course.over or error
        finally:
            self._under_way -= 1
            self._ended.set()
            self._ended = anyio.Event()
            self._tally.batches.pop(batch.key, None)
            await self._release(batch)

    async def _watch(self, batch: RowBatch) -> BatchStatus:
        """Look at a batch from time to time until it has ended. Raises `ProviderError`."""
        pause = FIRST_LOOK
        while True:
            wait, is_late = pause, time.time() > batch.made_at + LONGEST_BATCH
            try:
                status = await self._batches.status(str(batch.provider_batch))
            except ProviderError as error:
                if not error.is_transient or is_late:
                    raise
                wait = max(wait, asked_wait(error))
            else:
                if status.ending:
                    return status
                if is_late:
                    raise ProviderError(f"the batch has not ended: the provider calls it {status.word or 'nothing'}")
                done = f"{status.done:,} of {len(batch.digests):,} rows done there"
                self._tally.batches[batch.key] = f"batch {status.word}, {done}"
            await self._store.acquire_lease(lease_of(batch), self._holder, LEASE)
            await anyio.sleep(wait)
            pause = min(pause * 1.5, LONGEST_LOOK)

    async def _read(self, status: BatchStatus, reading: Reading) -> None:
        """Read the results, again if the connection breaks. Raises `ProviderError` or `StoreError`."""
        options = self._course.asker.options
        for number in count(1):
            try:
                async with self._batches.results(status) as results:
                    await reading.read(results, self._batches)
                break
            except ProviderError as error:
                if not error.is_transient or number > most_retries(error, options):
                    raise
                await anyio.sleep(retry_delay(error, number, random.random(), options))  # noqa: S311
        reading.end(status)

    @asynccontextmanager
    async def _cancelled_with_map(self, batch: RowBatch) -> AsyncIterator[None]:
        """Cancel a batch at the provider if a person stops the map meanwhile. What it has answered is read later."""
        try:
            yield
        except anyio.get_cancelled_exc_class():
            if self._course.of.is_stopped:
                with anyio.move_on_after(STOP_TIME, shield=True), suppress(MentraError):
                    if (id := batch.provider_batch or await self._find(batch)) is not None:
                        await self._batches.cancel(id)
            raise

    async def _forget(self, batch: RowBatch, spent: dict[Unit, int] | None) -> None:
        """Forget a batch, and count what it used; `None` for all that was reserved. Raises `StoreError`."""
        with anyio.CancelScope(shield=True):
            if batch.reservation is not None:
                await self._store.settle_budget(batch.reservation, spent)
            await self._store.delete_row_batch(batch.key)

    async def _release(self, batch: RowBatch) -> None:
        with anyio.CancelScope(shield=True), suppress(StoreError):
            await self._store.release_lease(lease_of(batch), self._holder)


def lease_of(batch: RowBatch) -> str:
    """Return the key of the lease of who reads a batch."""
    return f"rows:{batch.key}"


def half(most: dict[Unit, int]) -> dict[Unit, int]:
    """Return the most that a request may use in a batch."""
    return {unit: -int(-amount * BATCH_SHARE // 1) if unit == "usd" else amount for unit, amount in most.items()}


def total(most: Sequence[dict[Unit, int]]) -> dict[Unit, int]:
    """Return the sum of amounts by unit."""
    return {unit: sum(each[unit] for each in most) for unit in most[0]}


def may_have_arrived(error: ProviderError) -> bool:
    """Return whether a provider may have taken a batch though it did not answer so."""
    if isinstance(error, InvalidRequest):
        return False
    return not isinstance(error, HttpError) or error.status >= 500 or error.status == 408
