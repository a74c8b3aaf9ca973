"""Counts in words."""

from __future__ import annotations

import pytest

from mentra_nb.words import counted


@pytest.mark.parametrize(("number", "said"), [(0, "0 turns"), (1, "1 turn"), (2, "2 turns"), (11, "11 turns")])
def test_only_one_is_singular(number: int, said: str) -> None:
    assert counted(number, "turn") == said
