"""Storing the answers of rows as they come: those that come while a transaction is under way share the next one."""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio

from mentra_nb.errors import StoreError
from mentra_nb.store.row_answers import RowAnswer, RowAnswerStore


@dataclass
class _Batch:
    answers: list[RowAnswer] = field(default_factory=list)
    is_saved: bool = False
    error: StoreError | None = None


class Saver:
    """Stores answers. It must be used from one event loop only."""

    def __init__(self, store: RowAnswerStore) -> None:
        self._store = store
        self._next = _Batch()
        self._writing = anyio.Lock()

    async def save(self, answer: RowAnswer) -> None:
        """Return when the answer is stored, also where the caller is cancelled meanwhile. Raises `StoreError`."""
        batch = self._next
        batch.answers.append(answer)
        with anyio.CancelScope(shield=True):
            async with self._writing:
                if not batch.is_saved:
                    self._next = _Batch()
                    try:
                        await self._store.save_row_answers(batch.answers)
                    except StoreError as error:
                        batch.error = error
                    batch.is_saved = True
        if batch.error is not None:
            raise batch.error
