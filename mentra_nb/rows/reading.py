"""The results of one batch: each joined with its row, stored, and counted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from mentra_nb.agent.answer import PendingMessage
from mentra_nb.agent.loop import WHY_NOT_WHOLE
from mentra_nb.amounts import Unit
from mentra_nb.budget.requests import used
from mentra_nb.content import TokenUsage
from mentra_nb.errors import InvalidOutput, MalformedStream, MentraError, ProviderError
from mentra_nb.pricing import BATCH_SHARE, cost_usd
from mentra_nb.providers.batch import Batches, BatchResult, BatchStatus
from mentra_nb.rows.asking import Outcome
from mentra_nb.rows.course import Asked, Course
from mentra_nb.store.row_answers import RowBatch

AT_ONCE = 500
"""Answers that are stored in one transaction."""


class Reading:
    """What became of the rows of one batch.

    An answer that does not fit its type, an error that passes, and a row without a result are asked about singly. Rows
    whose turn did not come fail, or, if the batch was left behind by an earlier map, are to be handed in again.
    """

    def __init__(
        self,
        course: Course,
        batch: RowBatch,
        rows: Sequence[Asked],
        most: Mapping[str, dict[Unit, int]],
        *,
        is_own: bool,
    ) -> None:
        """Take a batch.

        Args:
            course: Whose rows they are.
            batch: All of its rows.
            rows: Those of them that are in the frame of the map.
            most: What each row may use at most, by digest, as far as this map has reserved it.
            is_own: Whether this map handed it in.
        """
        self.is_own = is_own
        self.again: list[Asked] = []
        self.singly: list[Asked] = []
        self._course, self._batch, self._most = course, batch, most
        self._rows = {each.digest: each for each in rows}
        self._known = set(batch.digests)
        self.spent: dict[Unit, int] | None = {"usd": 0, "tokens": 0}
        """What was used, by unit; `None` if that is not known."""
        self._has_any = False

    async def read(self, results: AsyncIterator[BatchResult], batches: Batches) -> None:
        """Take in results, those of other batches and those that were taken before left out.

        Raises `ProviderError` or `StoreError`.
        """
        some: list[tuple[str, Outcome]] = []
        try:
            async for result in results:
                if result.id in self._known:
                    self._known.discard(result.id)
                    self._has_any = True
                    if result.answer is None and result.error is None:
                        self._unfinished(result.id, "the batch ended")
                    else:
                        some.append((result.id, self._outcome(result, batches)))
                if len(some) == AT_ONCE:
                    taken, some = some, []
                    await self._take(taken)
        finally:
            await self._take(some)

    def _outcome(self, result: BatchResult, batches: Batches) -> Outcome:
        """Return what became of one request, with its usage at the price of a batch."""
        asker, outcome = self._course.asker, Outcome(requests=1)
        provider = asker.provider.descriptor.id
        pending = PendingMessage("", provider, asker.model)
        try:
            if result.error is not None:
                raise result.error
            for event in batches.events(asker.model, result.answer or {}):
                pending.apply(event)
            outcome.text = pending.message().text()
            if (why := WHY_NOT_WHOLE.get(pending.stop_reason or "end")) is not None:
                raise MentraError(why)
            if not outcome.text:
                raise MentraError("the model answered nothing")
            outcome.cells = asker.shape.read(outcome.text)
        except MentraError as error:
            outcome.error = error
        outcome.usage = at_half(provider, asker.model, pending.usage)
        if result.error is None:
            self._spend(result.id, outcome.usage)
        return outcome

    def _spend(self, digest: str, usage: TokenUsage | None) -> None:
        """Count what a row has used, or the most that it may have used."""
        most = self._most.get(digest, {"usd": 0, "tokens": 0})
        if self.spent is None:
            return
        if not (usage and not usage.is_empty()) and digest not in self._most:
            self.spent = None
            return
        asker = self._course.asker
        for unit, amount in used(asker.provider.descriptor.id, asker.model, usage, most).items():
            self.spent[unit] = self.spent.get(unit, 0) + amount

    async def _take(self, some: Sequence[tuple[str, Outcome]]) -> None:
        """Store answers, then count them and give them to their rows. Raises `StoreError`."""
        course = self._course
        answers = [course.answer(digest, outcome.text) for digest, outcome in some if outcome.error is None]
        if answers and course.of.cache is not False:
            await course.of.runtime.store.save_row_answers(answers)
        for digest, outcome in some:
            row, error = self._rows.pop(digest, None), outcome.error
            if row is None:
                course.spend(outcome)
            elif isinstance(error, InvalidOutput):
                course.spend(outcome)
                self.singly.append(row._replace(answered=outcome.text))
            elif isinstance(error, ProviderError) and (error.is_transient or isinstance(error, MalformedStream)):
                course.spend(outcome)
                self.singly.append(row)
            else:
                course.settle(row.rows, outcome)

    def fail(self, error: ProviderError) -> None:
        """Let all rows fail, or be handed in again if the batch was left behind, since all of it failed."""
        for row in self.unread():
            if self.is_own:
                self._course.settle(row.rows, Outcome(error=error))
            else:
                self.again.append(row)
        self._rows.clear()
        self._known.clear()

    def end(self, status: BatchStatus) -> None:
        """Say what becomes of rows that the results, now read to their end, have not."""
        for digest in list(self._known):
            if status.ending in ("expired", "cancelled"):
                self._unfinished(digest, f"the batch was {status.word}")
            elif not self.is_own and not self._has_any:  # it was another one
                self.again += self._taken(digest)
            else:
                self._spend(digest, None)
                self.singly += self._taken(digest)

    def unread(self) -> list[Asked]:
        """Return the rows without a result."""
        return list(self._rows.values())

    def _unfinished(self, digest: str, why: str) -> None:
        for row in self._taken(digest):
            if self.is_own:
                error = ProviderError(f"{why} before this row was answered: run the map again")
                self._course.settle(row.rows, Outcome(error=error))
            else:
                self.again.append(row)

    def _taken(self, digest: str) -> list[Asked]:
        row = self._rows.pop(digest, None)
        return [] if row is None else [row]


def at_half(provider: str, model: str, usage: TokenUsage | None) -> TokenUsage:
    """Return a usage with what it costs in a batch, if the price is known and the provider does not say it."""
    if usage is None or usage.cost_usd is not None:
        return usage or TokenUsage()
    cost = cost_usd(provider, model, usage)
    return usage if cost is None else usage.model_copy(update={"cost_usd": cost * BATCH_SHARE})
