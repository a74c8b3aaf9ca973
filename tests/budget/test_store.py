"""The store counts budgets: what is spent and reserved never exceeds a limit, whoever asks at the same time."""

from __future__ import annotations

import anyio
import pytest
from kits.stores import gone_pid, holder

from mentra_nb.amounts import Period, Unit
from mentra_nb.store.records import BudgetClaim, BudgetCount
from mentra_nb.store.row_answers import RowBatch
from mentra_nb.store.sql_store import SqlStore

pytestmark = pytest.mark.anyio


def claim(amount: int, limit: int = 10, unit: Unit = "tokens", period: Period = "day") -> BudgetClaim:
    return BudgetClaim(period, "2026-11-29", unit, amount, limit)


async def count(store: SqlStore, unit: Unit = "tokens") -> BudgetCount:
    return await store.count_budget("day", "2026-11-29", unit)


async def test_what_was_spent_takes_the_place_of_what_was_reserved(store: SqlStore) -> None:
    assert await store.reserve_budget("r1", holder(), [claim(6)]) is None
    assert await count(store) == BudgetCount(reserved=6)
    assert await store.reserve_budget("r2", holder(), [claim(6)]) == (claim(6), BudgetCount(reserved=6))
    assert await store.settle_budget("r1", {"tokens": 4})
    assert await count(store) == BudgetCount(spent=4)
    assert await store.reserve_budget("r2", holder(), [claim(6)]) is None


async def test_all_claims_are_reserved_or_none(store: SqlStore) -> None:
    dear = claim(1, 0, "calls")
    assert await store.reserve_budget("r1", holder(), [claim(6), dear]) == (dear, BudgetCount())
    assert await count(store) == BudgetCount()


async def test_a_reservation_is_settled_once(store: SqlStore) -> None:
    await store.reserve_budget("r1", holder(), [claim(6)])
    assert await store.settle_budget("r1", None)
    assert not await store.settle_budget("r1", {"tokens": 1})
    assert await count(store) == BudgetCount(spent=6)


async def test_a_person_may_raise_a_limit_before_and_after_it_is_reached(store: SqlStore) -> None:
    await store.extend_budget("day", "2026-11-29", "tokens", 5)
    assert await store.reserve_budget("r1", holder(), [claim(15)]) is None
    assert await store.reserve_budget("r2", holder(), [claim(1)]) is not None
    await store.extend_budget("day", "2026-11-29", "tokens", 1)
    assert await store.reserve_budget("r2", holder(), [claim(1)]) is None
    assert await count(store) == BudgetCount(reserved=16, extra=6)


async def test_what_costs_nothing_fits_a_budget_that_is_used_up(store: SqlStore) -> None:
    await store.reserve_budget("r1", holder(), [claim(10)])
    await store.settle_budget("r1", {"tokens": 12})
    assert await store.reserve_budget("r2", holder(), [claim(0)]) is None


async def test_what_a_dead_process_had_reserved_counts_as_spent_and_is_never_freed(store: SqlStore) -> None:
    me, dead = holder("runtime-1"), holder("runtime-2", pid=gone_pid())
    elsewhere = holder("runtime-3", host="another")
    leased = holder("runtime-4", host="another")
    await store.acquire_lease("agent:a", leased, 60)
    for number, each in enumerate((me, dead, elsewhere, leased)):
        assert await store.reserve_budget(f"r{number}", each, [claim(2)]) is None
    assert await count(store) == BudgetCount(reserved=8)
    assert await store.settle_left_behind(me) == 2
    assert await count(store) == BudgetCount(spent=4, reserved=4)
    assert not await store.settle_budget("r1", {"tokens": 0})


async def test_what_is_reserved_for_a_batch_outlives_its_process_until_the_batch_is_settled(store: SqlStore) -> None:
    me, dead = holder("me"), holder("dead", pid=gone_pid())
    assert await store.reserve_budget("r1", dead, [claim(3)]) is None
    await store.save_row_batch(RowBatch("k1", "a/b", ["1"], 1.0, "batch_1", "r1"))
    assert await store.settle_left_behind(me) == 0
    assert await count(store) == BudgetCount(reserved=3)
    assert await store.settle_budget("r1", {"tokens": 1})
    assert await count(store) == BudgetCount(spent=1)


async def test_of_many_at_once_only_those_that_fit_are_reserved(store: SqlStore) -> None:
    fitted: list[int] = []

    async def reserve(number: int) -> None:
        if await store.reserve_budget(f"r{number}", holder(), [claim(3, 100)]) is None:
            fitted.append(number)

    async with anyio.create_task_group() as group:
        for number in range(60):
            group.start_soon(reserve, number)
    assert len(fitted) == 33
    assert await count(store) == BudgetCount(reserved=99)
