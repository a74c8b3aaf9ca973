"""What a person thinks of answers: recorded, and read as a frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kits.records import Record

import mentra_nb as mn
from mentra_nb.content import TokenUsage
from mentra_nb.errors import OperationDenied
from mentra_nb.event.feedback import FeedbackGiven
from mentra_nb.notebook.commands.command import Context
from mentra_nb.notebook.grammar import parse
from mentra_nb.record.read import frames


def test_a_row_has_the_answer_that_it_is_about(record: Record) -> None:
    record.one_session()
    record.turn("r9", session="s9")
    record.response("q1", "r9", TokenUsage(input_tokens=9, output_tokens=1))
    record.response("review-2", "r9", TokenUsage(input_tokens=9, output_tokens=1), ("p", "reviewer"))
    record.call("c9", "r9")
    for verdict, note in (("good", None), ("bad", "wrong units")):
        record.add(FeedbackGiven, run_id="r9", session_id="s9", verdict=verdict, note=note)
    found = frames.feedback(folder=record.folder)
    assert list(found.columns) == list(mn.columns("feedback").column)
    assert [str(dtype) for dtype in found.dtypes] == list(mn.columns("feedback").dtype)
    assert found.verdict.tolist() == ["good", "bad"]
    assert found.note.fillna("").tolist() == ["", "wrong units"]
    assert (found.run_id[0], found.session_id[0], found.notebook[0]) == ("r9", "s9", "n.ipynb")
    turn = frames.turns(folder=record.folder, session="s9").iloc[0]
    assert (found.prompt[0], found.model[0], found.tools[0]) == (turn.prompt, turn.model, 1)
    assert not turn.model.endswith("reviewer")
    assert len(frames.feedback(folder=record.folder, verdict="bad", session="s9")) == 1
    assert len(frames.turns(folder=record.folder)) == len(frames.turns(folder=record.folder).run_id.unique())
    assert "%mentra good, or bad because" in repr(frames.feedback(folder=record.folder.parent / "none"))


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("good", ("good", None)),
        ("bad because the unit of column # 3 is wrong", ("bad", "the unit of column # 3 is wrong")),
        ('good "short, and right"', ("good", "short, and right")),
    ],
)
def test_the_last_answer_is_rated(
    line: str, row: tuple[str, str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from mentra_nb.chat.engine import engine, reset
    from mentra_nb.providers.scripted import ScriptedProvider, text

    monkeypatch.setenv("MENTRA_HOME", str(tmp_path))
    reset()
    engine().use(ScriptedProvider([text("one"), text("two")]), "scripted")
    command = parse(line)
    assert command.command is not None
    context = Context({}, show=pytest.fail)
    try:
        with pytest.raises(OperationDenied, match="there is no answer yet"):
            command.command.run(context, command.words)
        mn.ask("first?")
        reply = mn.ask("second?")
        command.command.run(context, command.words)
        found = mn.feedback(session="this")
        assert [found.verdict.tolist(), found.note.fillna("").tolist()] == [[row[0]], [row[1] or ""]]
        assert (found.run_id[0], found.prompt[0], found.answer[0]) == (reply.turn_id, "second?", "two")
        assert found.agent_id[0] == mn.turns().agent_id[0]
        assert "mn.feedback() lists all" in capsys.readouterr().out
    finally:
        reset()
