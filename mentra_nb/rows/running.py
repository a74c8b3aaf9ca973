"""A whole map: its rows, each asked once, what is stored of the answers, and the one turn it is in the record."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import anyio

from mentra_nb.errors import BudgetSpent, Cancelled, InvalidOutput, MentraError, ProviderError, StoreError
from mentra_nb.event import types as e
from mentra_nb.ids import new_id
from mentra_nb.rows.asking import Asker, Outcome
from mentra_nb.rows.digests import digests_of, prompt_digest
from mentra_nb.rows.saving import Saver
from mentra_nb.rows.shape import Cells
from mentra_nb.rows.source import Source
from mentra_nb.rows.tally import Tally
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.store.row_answers import RowAnswer

Cache = bool | Literal["refresh"]
Row = tuple[Any, ...]
"""The values of the columns that the prompt names."""
ROW = "row"
"""The beginning of the ids of a map's requests in the record."""
LOST = 20
"""Rows that fail one after the other, and no other answer between them, after which a map gives up."""


@dataclass
class Answers:
    """What one model answered: for each row its values and its error, one of them `None`."""

    cells: list[Cells | None]
    errors: list[MentraError | None]

    def set(self, rows: Sequence[int], cells: Cells | None, error: MentraError | None = None) -> None:
        """Set what became of equal rows."""
        for index in rows:
            self.cells[index], self.errors[index] = cells, error


class RowMap:
    """A map under way. It must be run on the engine's thread, once."""

    def __init__(
        self,
        runtime: Runtime,
        source: Source,
        askers: Sequence[Asker],
        *,
        workers: int = 16,
        most_rows: int | None = None,
        cache: Cache = True,
        stops_at_error: bool = False,
        id: str | None = None,
    ) -> None:
        """Take a frame and what is asked about it.

        Args:
            runtime: Has the store, the record and the providers.
            source: The rows.
            askers: One for each model, all with the same prompt.
            workers: Requests to one model at once, at most.
            most_rows: Rows that are asked at most; those whose answers are stored do not count.
            cache: Whether stored answers are used, and new ones are stored; `refresh` only stores.
            stops_at_error: Whether no row is asked after one that failed.
            id: The id of the map, a new one by default.
        """
        self.id: str = id or new_id("map")
        self.runtime = runtime
        self.tally: Tally = Tally(total=len(source) * len(askers))
        self.left: int | None = most_rows
        """Rows that may still be asked; `None` for all."""
        self.cache: Cache = cache
        self.stops_at_error = stops_at_error
        self.workers = workers
        self._source, self._askers = source, askers
        self._saver = Saver(runtime.store)
        self._scopes: list[anyio.CancelScope] = []
        self._is_stopped = False

    def stop(self) -> None:
        """Send no more requests and give up those under way. `run` then returns what is there."""
        self._is_stopped = True
        for scope in self._scopes:
            scope.cancel()

    async def run(self, origin: e.TurnOrigin) -> list[Answers]:
        """Ask about every row and return what each model answered. The turn in the record comes from `origin`."""
        began, found = time.monotonic(), list[Answers]()
        prompt, model = self._askers[0].template.text, self._askers[0].model
        where = origin.model_dump(include={"session_id", "cell_id", "execution_count"})
        started = e.TurnStarted(agent_id=self.id, run_id=self.id, model=model, prompt=prompt, **origin.model_dump())
        self.emit(started)
        stop_reason, error = "error", None
        try:
            prompts = self._source.values(self._askers[0].template.columns)
            found = [Answers([None] * len(prompts), [None] * len(prompts)) for _ in self._askers]
            async with anyio.create_task_group() as group:
                for asker, answers in zip(self._askers, found, strict=True):
                    group.start_soon(self._ask_one, asker, prompts, answers)
            spent = any(isinstance(each, BudgetSpent) for answers in found for each in answers.errors)
            stop_reason = "cancelled" if self._is_stopped else "budget" if spent else "end"
        except anyio.get_cancelled_exc_class():
            stop_reason = "cancelled"
            raise
        except BaseException as raised:
            error = str(raised) or type(raised).__name__
            raise
        finally:
            ms, success = int((time.monotonic() - began) * 1000), stop_reason == "end"
            how: dict[str, Any] = {"stop_reason": stop_reason, "error": error, "text": self.tally.summary()}
            self.emit(e.TurnFinished(agent_id=self.id, run_id=self.id, success=success, duration_ms=ms, **where, **how))
        return found

    async def _ask_one(self, asker: Asker, prompts: Sequence[Row], answers: Answers) -> None:
        course = _Course(self, asker, answers)
        with anyio.CancelScope() as scope:
            self._scopes.append(scope)
            if self._is_stopped:
                scope.cancel()
            await course.run(prompts)
        why = course.over or Cancelled("not asked: the map was stopped")
        for index, cells in enumerate(answers.cells):
            if cells is None and answers.errors[index] is None:
                answers.errors[index] = why
                self.tally.failed += 1

    async def keep(self, asker: Asker, digest: str, text: str) -> None:
        """Store an answer. Raises `StoreError`."""
        prompt = prompt_digest(asker.template.text)
        await self._saver.save(RowAnswer(digest, prompt, asker.name, text, time.time()))

    def emit(self, event: e.RuntimeEvent) -> None:
        """Write an event to the record."""
        self.runtime.hooks.emit(self.runtime.audit, event)


class _Course:
    """The rows of a map before one model."""

    def __init__(self, of: RowMap, asker: Asker, answers: Answers) -> None:
        self.over: MentraError | None = None
        """Why the rows that are left are not asked."""
        self._map, self._asker, self._answers = of, asker, answers
        self._failed_in_a_row = 0

    async def run(self, prompts: Sequence[Row]) -> None:
        """Ask about the rows that are not stored; rows with equal values are asked once."""
        rows, digest = dict[str, list[int]](), digests_of(self._asker)
        for index, values in enumerate(prompts):
            rows.setdefault(digest(values), []).append(index)
        if self._map.cache is True:
            stored = await self._map.runtime.store.load_row_answers(list(rows))
            for key, text in stored.items():
                self._use_stored(text, rows[key])
        asked = [(key, same, prompts[same[0]]) for key, same in rows.items() if self._answers.cells[same[0]] is None]
        left = iter(asked)
        async with anyio.create_task_group() as group:
            for _ in range(min(self._map.workers, len(asked))):
                group.start_soon(self._work, left)

    def _use_stored(self, text: str, rows: Sequence[int]) -> None:
        try:
            cells = self._asker.shape.read(text)
        except InvalidOutput:  # it is asked for anew
            return
        self._answers.set(rows, cells)
        self._map.tally.done += len(rows)
        self._map.tally.stored += len(rows)

    async def _work(self, left: Iterator[tuple[str, list[int], Row]]) -> None:
        """Ask about one row after the other."""
        asker, of = self._asker, self._map
        for key, rows, values in left:
            if self.over is not None:
                return
            if of.left is not None:
                if of.left <= 0:
                    self.over = BudgetSpent("not asked: the budget of rows is spent")
                    return
                of.left -= 1
            outcome = await asker.ask(dict(zip(asker.template.columns, values, strict=True)))
            if outcome.error is None and of.cache is not False:
                try:
                    await of.keep(asker, key, outcome.text)
                except StoreError as error:  # the answer is there, but what comes would be paid for again
                    self.over = error
            self._settle(rows, outcome)

    def _settle(self, rows: Sequence[int], outcome: Outcome) -> None:
        """Note what became of a row that was asked, and of those equal to it."""
        self._answers.set(rows, outcome.cells, outcome.error)
        self._map.tally.count(self._asker, outcome, len(rows))
        if outcome.requests:
            self._map.emit(self._event(outcome))
        error = outcome.error
        lost = isinstance(error, ProviderError)
        self._failed_in_a_row = self._failed_in_a_row + 1 if lost else 0
        is_hopeless = outcome.is_last or self._failed_in_a_row >= max(LOST, 2 * self._map.workers)
        if error is not None and (is_hopeless or self._map.stops_at_error):
            self.over = self.over or error

    def _event(self, outcome: Outcome) -> e.ModelResponseFinished:
        error = str(outcome.error) if outcome.error is not None else None
        return e.ModelResponseFinished(
            agent_id=self._map.id,
            run_id=self._map.id,
            model=self._asker.model,
            provider=self._asker.provider.descriptor.id,
            attempt=outcome.requests,
            success=error is None,
            error=error,
            stop_reason="end" if error is None else None,
            usage=None if outcome.usage.is_empty() else outcome.usage,
            request_id=new_id(ROW),
        )
