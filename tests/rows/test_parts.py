"""What parts of a map in several processes share, and what passes between them."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from mentra_nb import errors
from mentra_nb.errors import (
    BudgetSpent,
    Cancelled,
    DeadlineExceeded,
    HttpError,
    InvalidOutput,
    MentraError,
    ToolBudgetExceeded,
    Unreachable,
    UnsupportedCapability,
)
from mentra_nb.ids import new_id
from mentra_nb.rows.row_budget import RowBudget
from mentra_nb.store.records import LeaseHolder
from mentra_nb.store.sqlite import SqliteStore

RAISED = [
    HttpError(429, '{"error": {"message": "slow down"}}', retry_after=2.5, request_id="r1"),
    InvalidOutput("Ticket", "it has no 'kind'", "{}"),
    Unreachable("127.0.0.1:1", "refused"),
    UnsupportedCapability("lab", "images"),
    Cancelled(),
    DeadlineExceeded(),
    ToolBudgetExceeded(3),
    errors.ReadFile(Path("a.md"), "not there"),
    BudgetSpent("nothing is left"),
]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_an_error_says_the_same_in_another_process(error: MentraError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))


@pytest.mark.anyio
async def test_a_budget_of_rows_is_that_of_the_map_in_all_processes(tmp_path: Path) -> None:
    stores = [SqliteStore(tmp_path / "state.sqlite") for _ in range(2)]
    budgets = [RowBudget(store, LeaseHolder.here(new_id("runtime")), "map-1", 5) for store in stores]
    taken = [await budgets[number % 2].take() for number in range(8)]
    other = RowBudget(stores[0], LeaseHolder.here("r"), "map-2", 1)
    assert taken == [True] * 5 + [False] * 3
    assert await other.take()
    for store in stores:
        store.close()
