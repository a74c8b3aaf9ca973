"""How many rows a map may still ask, counted in the state store, so that its parts in several processes share it."""

from __future__ import annotations

import anyio

from mentra_nb.ids import new_id
from mentra_nb.store.protocols import BudgetStore
from mentra_nb.store.records import BudgetClaim, LeaseHolder


class RowBudget:
    """At most so many rows of one map. A row that is taken counts, whatever becomes of it."""

    def __init__(self, store: BudgetStore, holder: LeaseHolder, map_id: str, rows: int) -> None:
        self._store, self._holder = store, holder
        self._claim = BudgetClaim("turn", map_id, "calls", 1, rows)

    async def take(self, rows: int = 1) -> bool:
        """Take that many rows, and return whether so many were left; else take none. Raises `StoreError`."""
        id = new_id("reservation")
        with anyio.CancelScope(shield=True):
            if await self._store.reserve_budget(id, self._holder, [self._claim._replace(amount=rows)]) is not None:
                return False
            await self._store.settle_budget(id, {"calls": rows})
        return True
