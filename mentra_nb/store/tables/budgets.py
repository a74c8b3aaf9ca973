"""The tables of budgets: what each has spent, and what is reserved of it for requests that are under way."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mentra_nb.store.tables.leases import is_alive
from mentra_nb.store.transactions import Database, Transaction, insert, to_json

if TYPE_CHECKING:
    from mentra_nb.amounts import Period, Unit
    from mentra_nb.store.records import BudgetClaim, BudgetCount, LeaseHolder

_OF = "period = ? AND key = ? AND unit = ?"
_RESERVE = (
    "INSERT INTO budgets(period, key, unit, reserved) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (period, key, unit) DO UPDATE SET reserved = budgets.reserved + excluded.reserved"
)
_SETTLE = f"UPDATE budgets SET reserved = reserved - ?, spent = spent + ? WHERE {_OF}"
_EXTEND = (
    "INSERT INTO budgets(period, key, unit, extra) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (period, key, unit) DO UPDATE SET extra = budgets.extra + excluded.extra"
)

_LEFT_BEHIND = (
    "SELECT id FROM reservations WHERE runtime_id = ? "
    "AND id NOT IN (SELECT reservation FROM row_batches WHERE reservation IS NOT NULL)"
)
"""Not what is reserved for a batch: the provider may still answer it, and who reads its results settles it."""


class BudgetTable(Database):
    async def reserve_budget(
        self, reservation_id: str, holder: LeaseHolder, claims: Sequence[BudgetClaim]
    ) -> tuple[BudgetClaim, BudgetCount] | None:
        def work(db: Transaction) -> tuple[BudgetClaim, BudgetCount] | None:
            for claim in claims:
                count = _count(db, claim.period, claim.key, claim.unit)
                left = claim.limit + count.extra - count.spent - count.reserved
                if claim.amount > max(left, 0):
                    return claim, count
            for claim in claims:
                db.execute(_RESERVE, (claim.period, claim.key, claim.unit, claim.amount))
            made = [(claim.period, claim.key, claim.unit, claim.amount) for claim in claims]
            row = {"id": reservation_id, **holder.model_dump(), "claims": to_json(made), "made_at": time.time()}
            insert(db, "reservations", row)
            return None

        return await self.write(work, brief=True)

    async def settle_budget(self, reservation_id: str, spent: Mapping[Unit, int] | None) -> bool:
        return await self.write(lambda db: _settle(db, reservation_id, spent), brief=True)

    async def extend_budget(self, period: Period, key: str, unit: Unit, more: int) -> None:
        await self.write(lambda db: db.execute(_EXTEND, (period, key, unit, more)), sync=True)

    async def count_budget(self, period: Period, key: str, unit: Unit) -> BudgetCount:
        return await self.read(lambda db: _count(db, period, key, unit), brief=True)

    async def settle_left_behind(self, asker: LeaseHolder) -> int:
        holders = "SELECT DISTINCT runtime_id, host, pid, process_started FROM reservations WHERE runtime_id <> ?"

        def work(db: Transaction) -> int:
            now, settled = time.time(), 0
            for holder in db.execute(holders, (asker.runtime_id,)).fetchall():
                if not is_alive(db, holder, asker, now):
                    for row in db.execute(_LEFT_BEHIND, (holder["runtime_id"],)).fetchall():
                        settled += _settle(db, row["id"], None)
            return settled

        return await self.write(work)


def _count(db: Transaction, period: str, key: str, unit: str) -> BudgetCount:
    from mentra_nb.store.records import BudgetCount

    row = db.execute(f"SELECT spent, reserved, extra FROM budgets WHERE {_OF}", (period, key, unit)).fetchone()
    return BudgetCount() if row is None else BudgetCount(row["spent"], row["reserved"], row["extra"])


def _settle(db: Transaction, reservation_id: str, spent: Mapping[Unit, int] | None) -> bool:
    row: Any = db.execute("DELETE FROM reservations WHERE id = ? RETURNING claims", (reservation_id,)).fetchone()
    if row is None:
        return False
    for period, key, unit, amount in json.loads(row["claims"]):
        used = amount if spent is None else spent.get(unit, 0)
        db.execute(_SETTLE, (amount, used, period, key, unit))
    return True
