"""The rows of a map before one model: those whose answers are stored, and those that are asked one by one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import anyio
import anyio.to_thread

from mentra_nb.errors import BudgetSpent, InvalidOutput, MentraError, ProviderError, StoreError
from mentra_nb.event import types as e
from mentra_nb.ids import new_id
from mentra_nb.rows.asking import Asker, Outcome
from mentra_nb.rows.digests import digests_of, prompt_digest
from mentra_nb.rows.row_budget import RowBudget
from mentra_nb.rows.saving import Saver
from mentra_nb.rows.shape import Cells
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
NO_ROWS_LEFT = "not asked: the budget of rows is spent"


@dataclass
class Answers:
    """What one model answered: for each row its values and its error, one of them `None`."""

    cells: list[Cells | None]
    errors: list[MentraError | None]

    def set(self, rows: Sequence[int], cells: Cells | None, error: MentraError | None = None) -> None:
        """Set what became of equal rows."""
        for index in rows:
            self.cells[index], self.errors[index] = cells, error


class Asked(NamedTuple):
    """A row that is asked."""

    digest: str
    rows: list[int]
    """Its index in the frame, and those of the rows that are equal to it."""
    values: Row
    answered: str | None = None
    """An answer of the model that does not fit, and is to be mended."""
    is_counted: bool = False
    """Whether the budget of rows has it already."""


@dataclass
class Shared:
    """What the courses of one map share. It must be used from one event loop only."""

    id: str
    runtime: Runtime
    tally: Tally
    workers: int
    """Requests to one model at once, at most."""
    budget: RowBudget | None
    """Of rows that are asked; `None` for all."""
    cache: Cache
    """Whether stored answers are used, and new ones are stored; `refresh` only stores."""
    stops_at_error: bool
    is_stopped: bool = False
    """Whether a person has stopped the map."""
    saver: Saver = field(init=False)

    def __post_init__(self) -> None:
        self.saver = Saver(self.runtime.store)

    def emit(self, event: e.RuntimeEvent) -> None:
        """Write an event to the record."""
        self.runtime.hooks.emit(self.runtime.audit, event)

    async def take_row(self) -> bool:
        """Take one row out of the budget of rows. Return whether there was one. Raises `StoreError`."""
        return self.budget is None or await self.budget.take()

    async def take_rows(self, wanted: int) -> int:
        """Take up to so many rows out of the budget of rows. Return how many there were. Raises `StoreError`."""
        if self.budget is None:
            return wanted
        taken, step = 0, wanted
        while step and taken < wanted:
            some = min(step, wanted - taken)
            if await self.budget.take(some):
                taken += some
            else:
                step //= 2
        return taken


class Course:
    """The rows of a map before one model."""

    def __init__(self, of: Shared, asker: Asker, answers: Answers) -> None:
        self.over: MentraError | None = None
        """Why the rows that are left are not asked."""
        self.of = of
        self.asker = asker
        self._answers = answers
        self._failed_in_a_row = 0
        self._prompt = prompt_digest(asker.template.text)

    async def unanswered(self, prompts: Sequence[Row]) -> list[Asked]:
        """Use the answers that are stored, and return the other rows; those with equal values are one."""
        rows, digest = dict[str, list[int]](), digests_of(self.asker)
        digests = await anyio.to_thread.run_sync(lambda: [digest(values) for values in prompts])  # reads files
        for index, key in enumerate(digests):
            rows.setdefault(key, []).append(index)
        asked = [Asked(key, same, prompts[same[0]]) for key, same in rows.items()]
        return await self.without_stored(asked) if self.of.cache is True else asked

    async def without_stored(self, asked: Sequence[Asked]) -> list[Asked]:
        """Use the answers that are stored, and return the other rows."""
        stored = await self.of.runtime.store.load_row_answers([each.digest for each in asked])
        return [each for each in asked if each.digest not in stored or not self._use(stored[each.digest], each.rows)]

    def _use(self, text: str, rows: Sequence[int]) -> bool:
        try:
            cells = self.asker.shape.read(text)
        except InvalidOutput:  # it is asked for anew
            return False
        self._answers.set(rows, cells)
        self.of.tally.done += len(rows)
        self.of.tally.stored += len(rows)
        return True

    async def ask(self, asked: Sequence[Asked]) -> None:
        """Ask about rows one by one, several at once."""
        left = iter(asked)
        async with anyio.create_task_group() as group:
            for _ in range(min(self.of.workers, len(asked))):
                group.start_soon(self._work, left)

    async def _work(self, left: Iterator[Asked]) -> None:
        """Ask about one row after the other."""
        names = self.asker.template.columns
        for each in left:
            if self.over is not None:
                return
            if not each.is_counted and not await self._takes_row():
                return
            outcome = await self.asker.ask(dict(zip(names, each.values, strict=True)), each.answered)
            if outcome.error is None and self.of.cache is not False:
                try:
                    await self.of.saver.save(self.answer(each.digest, outcome.text))
                except StoreError as error:  # the answer is there, but what comes would be paid for again
                    self.over = error
            self.settle(each.rows, outcome)

    async def _takes_row(self) -> bool:
        try:
            if await self.of.take_row():
                return True
            self.over = BudgetSpent(NO_ROWS_LEFT)
        except StoreError as error:
            self.over = error
        return False

    def answer(self, digest: str, text: str) -> RowAnswer:
        """Return an answer as it is stored."""
        return RowAnswer(digest, self._prompt, self.asker.name, text, time.time())

    def settle(self, rows: Sequence[int], outcome: Outcome) -> None:
        """Note what became of a row that was asked, and of those equal to it."""
        self._answers.set(rows, outcome.cells, outcome.error)
        self.of.tally.count(outcome, len(rows))
        self.spend(outcome)
        error = outcome.error
        lost = isinstance(error, ProviderError)
        self._failed_in_a_row = self._failed_in_a_row + 1 if lost else 0
        is_hopeless = outcome.is_last or self._failed_in_a_row >= max(LOST, 2 * self.of.workers)
        if error is not None and (is_hopeless or self.of.stops_at_error):
            self.over = self.over or error

    def spend(self, outcome: Outcome) -> None:
        """Note what was used, also where the row is asked once more."""
        self.of.tally.spend(self.asker, outcome)
        if outcome.requests:
            self.of.emit(self._event(outcome))

    def _event(self, outcome: Outcome) -> e.ModelResponseFinished:
        error = str(outcome.error) if outcome.error is not None else None
        return e.ModelResponseFinished(
            agent_id=self.of.id,
            run_id=self.of.id,
            model=self.asker.model,
            provider=self.asker.provider.descriptor.id,
            attempt=outcome.requests,
            success=error is None,
            error=error,
            stop_reason="end" if error is None else None,
            usage=None if outcome.usage.is_empty() else outcome.usage,
            request_id=new_id(ROW),
        )


def no_batches(provider: str) -> str:
    """Return what the person who waits is told of a provider without batches."""
    return f"{provider} has no batches, so each row was asked by itself at the full price"
