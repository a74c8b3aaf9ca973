"""The limits of one turn keep what the conversation's own limits say."""

from __future__ import annotations

from pathlib import Path

import pytest

import mentra_nb as mn
from mentra_nb.chat.budgets import limits_of


def test_a_budget_or_an_option_of_a_turn_keeps_the_plan_of_its_conversation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MENTRA_HOME", str(tmp_path))
    chat = mn.Chat("limits", limits=mn.RunOptions(plan=True))
    for limits in (limits_of(chat, "1usd"), limits_of(chat, None, without_tools=True)):
        assert limits is not None
        assert limits.plan
