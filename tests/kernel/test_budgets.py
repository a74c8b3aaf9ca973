"""Budgets in a notebook: the card at the limit, what it says, and the table of what is left."""

from __future__ import annotations

import pytest
from kits.notebooks import Notebook

pytestmark = pytest.mark.kernel


def test_the_card_at_a_limit_lets_a_person_go_on_with_more_or_stop(notebook: Notebook) -> None:
    notebook.script("s.text('Done.')")
    asking = notebook.send("%mentra --budget 100 what now?")
    notebook.ready(asking)
    (card,) = (state["question"] for state in notebook.models.values() if "question" in state)
    assert card["headline"] == "mentra asks"
    assert card["effect"].startswith("The budget of this turn, 100 tokens, has 100 tokens left, and the next request")
    assert (card["words"]["allow"], card["words"]["deny"]) == ("Go on", "Stop here")
    assert [(field["name"], field["title"]) for field in card["fields"]] == [("more", "More tokens (needed)")]
    notebook.choose(asking, answer="allow", values={"more": "100000"})
    notebook.finish(asking)
    assert "Done." in asking.texts()

    declined = notebook.send("%mentra --budget 100 what now?")
    notebook.ready(declined)
    notebook.choose(declined, answer="deny", reason="")
    notebook.finish(declined)
    assert "the answer is empty: a limit of this turn was reached (the budget of this turn, 100 tokens," in (
        declined.texts()
    )
    assert declined.status == "error"  # the cells after it do not run


def test_the_table_of_budgets_says_what_is_left(notebook: Notebook) -> None:
    assert "No budget is set." in str(notebook.run("%mentra budgets").events)
    notebook.run("%config Mentra.budget_day = '2 tools'")
    notebook.run("%config Mentra.budget_turn = '1M, 2usd'")
    try:
        notebook.script("shell('true')", "s.text('Done.')")
        notebook.run("mn.allow('shell', 'true')")
        notebook.run("%mentra run it")
        rows = notebook.value("mn.budgets()[['period', 'limit', 'spent', 'reserved', 'left', 'unit']].values.tolist()")
        assert rows[0][0] == "turn"
        assert 1_000 < rows[0][2] < 50_000
        assert rows[1] == ["turn", 2.0, 0.0, 0.0, 2.0, "usd"]
        assert rows[2] == ["day", 2.0, 1.0, 0.0, 1.0, "calls"]
        assert "calls" in str(notebook.run("%mentra budgets").events)
    finally:
        notebook.run("%config Mentra.budget_day = None")
        notebook.run("%config Mentra.budget_turn = None")


def test_what_is_not_an_amount_is_refused_where_it_is_written(notebook: Notebook) -> None:
    assert "'much' is not an amount" in notebook.run("%mentra --budget much what now?").error
    assert "'much' is not an amount" in str(notebook.run("%config Mentra.budget_day = 'much'").events)
