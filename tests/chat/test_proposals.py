"""The patterns that a card proposes, each with what it would have covered among the calls on record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kits.stores import question

import mentra_nb as mn
from mentra_nb.authorization import PermissionQuestion, Subject
from mentra_nb.chat import engine
from mentra_nb.chat.proposals import proposals
from mentra_nb.notebook.approval import ApprovalCard
from mentra_nb.notebook.prompting import Prompt
from mentra_nb.providers.scripted import ScriptedProvider, text, tool_calls

pytestmark = pytest.mark.slow
LINES = ("git status -s", "git status", "git log --oneline", "ls", "ls data")


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A record in which five commands were decided about, in a session with a denial."""
    monkeypatch.chdir(tmp_path)
    engine.reset()
    chat = mn.Chat("earlier")
    mn.use(ScriptedProvider([*(tool_calls([("shell", {"command": line})]) for line in LINES), text("done")]))
    chat.ask("run them")
    yield
    engine.reset()


def asked(line: str) -> PermissionQuestion:
    return question("q").model_copy(update={"tool_name": "shell", "subject": Subject.shell(line), "session_id": "s"})


def test_each_proposal_says_what_it_would_have_covered(recorded: None) -> None:
    narrow, wider, widest = proposals(engine.engine(), asked("git status -s"), None)
    assert (narrow["pattern"], narrow["broad"]) == ("git status -s", "")
    assert narrow["covered"] == "would have covered 1 of 5 calls on record"
    assert (wider["pattern"], wider["broad"]) == ("git status *", "")
    assert wider["covered"] == "would have covered 1 of 5 calls on record"
    assert widest["pattern"] == "git *"
    assert "can run other programs" in widest["broad"]
    expected = "would have covered 3 of 5 calls on record, such as git log --oneline and git status"
    assert widest["covered"] == expected


def test_the_card_gets_them_when_it_asks(recorded: None) -> None:
    card = ApprovalCard(asked("ls data"), lambda _: None)
    sent: list[Any] = []
    card.send = sent.append
    card._on_message(card, {"proposals": True}, [])
    assert [each["pattern"] for each in sent[0]["proposals"]] == ["ls data", "ls data*", "ls *"]


def test_a_rule_says_how_broad_it_is_where_it_is_made_and_where_it_is_listed(recorded: None) -> None:
    made = mn.allow("shell", "sort *")
    assert "sort -o" in str(made.breadth)
    assert "breadth='sort" in repr(made)
    assert mn.allow("shell", "ls *").breadth is None
    assert mn.deny("shell", "find *").breadth is None
    found = mn.rules().set_index("pattern").breadth
    assert "sort -o" in found["sort *"]
    assert found[["ls *", "find *"]].isna().all()


def test_a_prompt_says_the_same_of_them_as_the_card(recorded: None) -> None:
    prompt = Prompt(asked("git status -s"), None, "", repeats=False)
    assert prompt.reply("w") is None
    rows = prompt.text().splitlines()[1:4]
    for row, each in zip(rows, proposals(engine.engine(), asked("git status -s"), None), strict=True):
        assert each["pattern"] in row
        assert each["covered"] in row
        assert each["broad"] in row
