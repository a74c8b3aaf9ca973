"""Dates of cells that arrive while a question is open: only a user who could have read it may answer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from mentra_nb.notebook.pump import MIN_QUESTION_AGE, sent_after_reading

BEGAN = 1_700_000_000.0
"""When the running cell was sent, by the page's clock."""
CELL = {"header": {"session": "page", "date": datetime.fromtimestamp(BEGAN, UTC)}}


def sent(at: float, *, session: str = "page", shown_after: float = 2.0, shown_date: float = BEGAN + 2.0) -> bool:
    """Return whether a cell counts that was sent `at` seconds after the running one."""
    header = {"session": session, "date": datetime.fromtimestamp(BEGAN + at, UTC)}
    return sent_after_reading(header, CELL, shown_after, shown_date)


@pytest.mark.parametrize("session", ["page", "other"])
@pytest.mark.parametrize(
    ("at", "counts"),
    [
        (0.01, False),
        (1.99, False),
        (2.0, False),
        (2.0 + MIN_QUESTION_AGE - 0.001, False),
        (2.0 + MIN_QUESTION_AGE + 0.001, True),
        (600.0, True),
    ],
)
def test_a_cell_counts_once_the_question_could_be_read(session: str, at: float, counts: bool) -> None:
    assert sent(at, session=session) is counts


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
def test_the_same_page_is_compared_by_its_own_clock(ahead: float) -> None:
    assert sent(2.1, shown_date=BEGAN + ahead) is False
    assert sent(2.5, shown_date=BEGAN + ahead) is True


def test_another_client_is_compared_by_the_clock_of_the_kernel() -> None:
    assert sent(2.5, session="other", shown_after=0.0, shown_date=BEGAN + 3.0) is False
    assert sent(3.5, session="other", shown_after=9.0, shown_date=BEGAN + 3.0) is True


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"session": "page"},
        {"session": "page", "date": "not a date"},
        {"session": "page", "date": None},
        {"session": "page", "date": 5},
    ],
)
def test_without_a_valid_date_it_never_counts(header: dict[str, Any]) -> None:
    assert sent_after_reading(header, CELL, 0.0, 0.0) is False
    assert (
        sent_after_reading({"session": "page", "date": "2026-01-01T00:00:00Z"}, {"header": header}, 0.0, 0.0) is False
    )
