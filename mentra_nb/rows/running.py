"""A whole map: its rows, each asked once, what is stored of the answers, and the one turn it is in the record."""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from mentra_nb.errors import Cancelled
from mentra_nb.event import types as e
from mentra_nb.ids import new_id
from mentra_nb.rows.asking import Asker
from mentra_nb.rows.course import Answers, Asked, Cache, Course, Row, Shared, no_batches
from mentra_nb.rows.recorded import turn
from mentra_nb.rows.row_budget import RowBudget
from mentra_nb.rows.source import Source
from mentra_nb.rows.tally import Tally
from mentra_nb.runtime.runtime import Runtime


class RowMap:
    """A map under way. It must be run on the engine's thread, once."""

    def __init__(
        self,
        runtime: Runtime,
        source: Source,
        askers: Sequence[Asker],
        *,
        workers: int = 16,
        budget: RowBudget | None = None,
        cache: Cache = True,
        stops_at_error: bool = False,
        id: str | None = None,
        batch: bool = False,
        is_part: bool = False,
    ) -> None:
        """Take a frame and what is asked about it.

        Args:
            runtime: Has the store, the record and the providers.
            source: The rows.
            askers: One for each model, all with the same prompt.
            workers: Requests to one model at once, at most.
            budget: Of rows that are asked; those whose answers are stored do not count.
            cache: Whether stored answers are used, and new ones are stored; `refresh` only stores.
            stops_at_error: Whether no row is asked after one that failed.
            id: The id of the map, a new one by default.
            batch: Whether rows go to the provider in batches, if it has them.
            is_part: Whether these are only a part of the map's rows.
        """
        self.id: str = id or new_id("map")
        self.tally: Tally = Tally(total=len(source) * len(askers))
        self._shared = Shared(self.id, runtime, self.tally, workers, budget, cache, stops_at_error)
        self._source, self._askers, self._is_part, self._in_batch = source, askers, is_part, batch
        self._scopes: list[anyio.CancelScope] = []

    def stop(self) -> None:
        """Send no more requests and give up those under way. `run` then returns what is there."""
        self._shared.is_stopped = True
        for scope in self._scopes:
            scope.cancel()

    async def run(self, origin: e.TurnOrigin) -> list[Answers]:
        """Ask about every row and return what each model answered. The turn in the record comes from `origin`."""
        first = self._askers[0]
        runtime, prompt = self._shared.runtime, first.template.text
        with turn(runtime, self.id, prompt, first.model, origin, self._summary) as ending:
            prompts = self._source.values(first.template.columns)
            found = [Answers([None] * len(prompts), [None] * len(prompts)) for _ in self._askers]
            async with anyio.create_task_group() as group:
                for asker, answers in zip(self._askers, found, strict=True):
                    group.start_soon(self._ask_one, asker, prompts, answers)
            ending.set(found, is_stopped=self._shared.is_stopped)
        return found

    def _summary(self) -> str:
        return f"{'of one part: ' * self._is_part}{self.tally.summary()}"

    async def _ask_one(self, asker: Asker, prompts: Sequence[Row], answers: Answers) -> None:
        course = Course(self._shared, asker, answers)
        with anyio.CancelScope() as scope:
            self._scopes.append(scope)
            if self._shared.is_stopped:
                scope.cancel()
            asked = await course.unanswered(prompts)
            await course.ask(await self._in_batches(course, asked) if self._in_batch else asked)
        why = course.over or Cancelled("not asked: the map was stopped")
        for index, cells in enumerate(answers.cells):
            if cells is None and answers.errors[index] is None:
                answers.errors[index] = why
                self.tally.failed += 1

    async def _in_batches(self, course: Course, asked: Sequence[Asked]) -> Sequence[Asked]:
        """Let the provider answer rows in batches. Return those that are to be asked one by one."""
        from mentra_nb.providers.batches import batches_of
        from mentra_nb.rows.batching import Batching

        batches = batches_of(course.asker.provider)
        if batches is None:
            self.tally.note = no_batches(course.asker.provider.descriptor.id)
            return asked
        return await Batching(course, batches).run(asked)
