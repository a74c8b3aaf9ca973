"""Suggested rules from a real record: calls that a person answered, then fewer questions in the next conversation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kits.decisions import FILES
from kits.records import Record
from kits.shells import loaded_shell

import mentra_nb as mn
import mentra_nb.event.types as e
from mentra_nb import paths
from mentra_nb.authorization import PermissionDecision
from mentra_nb.chat import engine
from mentra_nb.chat.suggest import accept, suggest_rules
from mentra_nb.errors import OperationDenied
from mentra_nb.event import screen as shown
from mentra_nb.event.effects import ChangedFile, EffectMade
from mentra_nb.notebook.commands.suggested import buttons
from mentra_nb.providers.scripted import ScriptedProvider, text, tool_calls

pytestmark = pytest.mark.slow
ALLOWED = (
    *(f"head -{n} data/{name}" for n, name in enumerate(FILES[:4], 2)),
    *(["wc -l data/sales.csv | cut -d. -f1"] * 3),
    *(["ls data"] * 4),
    "touch data/x",
)
DENIED = ("cat .env", "head -3 .env", "rm data/sales.csv", "rm data/sales.csv")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "data").mkdir()
    for name in FILES:
        (tmp_path / "data" / name).write_text("a,b\n")
    monkeypatch.chdir(tmp_path)
    engine.reset()
    yield tmp_path
    engine.reset()


def asked(lines: tuple[str, ...], chat: mn.Chat) -> list[str]:
    """Put commands to a person who answers by `ALLOWED`; return those that were asked about."""
    mn.use(ScriptedProvider([*(tool_calls([("shell", {"command": line})]) for line in lines), text("done")]))
    turn, questions = chat.start("run them"), list[str]()
    turn.future.add_done_callback(lambda _: turn.notice("over"))
    while True:
        event = turn.events.get(timeout=30)
        if isinstance(event, shown.Notice) and event.message == "over":
            break
        if isinstance(event, shown.QuestionAsked):
            (question,) = turn.open_questions()
            questions.append(str(question.subject))
            turn.answer(event.request_id, PermissionDecision(allow=questions[-1] in ALLOWED))
    turn.result()
    return questions


def test_accepted_suggestions_save_the_questions_of_the_next_conversation(project: Path) -> None:
    lines = (*ALLOWED, *DENIED)
    assert asked(lines, mn.Chat("first")) == list(lines)
    assert mn.rules().empty
    found = suggest_rules()
    assert list(found.pattern) == ["head -? data/*.csv", "ls data", "wc -l data/sales.csv", "cut -d. -f1"]
    assert set(found.scope) == {"project"}
    assert found.saves_per_week.tolist() == [4.0, 4.0, 3.0, 3.0]
    calls = ["4 calls, all allowed by you", "4 calls, all allowed by you", *["3 calls, all allowed by you"] * 2]
    assert found.backtest.tolist() == calls
    assert "head -5 data.csv" not in str(found.also_covers[0])
    assert mn.rules().empty  # nothing is remembered unasked
    for each in found.itertuples():
        mn.allow(each.tool, each.pattern, scope=each.scope)
    questions = asked(lines, mn.Chat("second"))
    assert questions == ["touch data/x", *DENIED]
    assert suggest_rules().pattern.tolist() == ["touch data/x"]  # the second time that it was allowed


def test_the_magic_lists_and_accepts_by_number(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked(("ls data", "ls data"), mn.Chat("first"))
    with loaded_shell() as shell:
        with pytest.raises(OperationDenied, match="rules suggest lists them"):
            shell.run_line_magic("mentra", "rules accept 1")
        shown_ = repr(shell.run_line_magic("mentra", "rules suggest"))
        assert "ls data" in shown_
        assert "saves a week" in shown_
        assert "nothing is remembered unasked" in capsys.readouterr().out
        with pytest.raises(OperationDenied, match="no suggestion 2"):
            shell.run_line_magic("mentra", "rules accept 2")
        shell.run_line_magic("mentra", "rules accept 1")
        assert "Allowed: shell ls data (for the project" in capsys.readouterr().out
    assert mn.rules()[["tool", "pattern", "scope"]].values.tolist() == [["shell", "ls data", "project"]]


def test_a_click_accepts_a_suggestion_once(project: Path) -> None:
    asked(("ls data", "ls data"), mn.Chat("first"))
    [button] = buttons(suggest_rules()).children
    assert button.description == "Accept 1: shell ls data"
    button.click()
    assert (button.description, button.disabled) == ("Allowed: shell ls data", True)
    assert mn.rules()[["tool", "pattern"]].values.tolist() == [["shell", "ls data"]]


def past(record: Record, n: int, line: str, outcome: str, by: str) -> None:
    same = {"run_id": "r", "tool_call_id": f"c{n}", "tool_name": "shell"}
    record.add(e.ToolAuthorizationFinished, **same, outcome=outcome, decided_by=by, subject=line)


def test_only_answers_of_a_person_teach_and_other_denials_count(project: Path) -> None:
    record = Record(paths.record_folder())
    record.turn("r")
    for n, (line, outcome, by) in enumerate(
        [
            *([("ls a", "allow", "setting")] * 2),
            *([("ls b", "allow", "sandbox")] * 2),
            *([("ls c", "deny", "timeout"), ("ls c", "allow", "user"), ("ls c", "allow", "user")]),
            *([("ls d", "deny", "policy"), ("ls d", "allow", "user"), ("ls d", "allow", "user")]),
            *([("ls e", "deny", "rule:1"), ("ls e", "allow", "user"), ("ls e", "allow", "user")]),
            *([(f"pytest -q tests/test_{name}.py", "allow", "user") for name in "ab"]),
        ]
    ):
        past(record, n, line, outcome, by)
    record.journal.close()
    found = suggest_rules(session="s1")
    assert found.pattern.tolist() == ["ls c", "pytest -q tests/test_*.py"]
    assert found.also_covers.isna().tolist() == [True, False]
    assert found.also_covers[1].splitlines() == ["pytest can run other programs", "pytest -q tests/test_main.py"]
    assert "Nothing to suggest" in repr(suggest_rules())  # it is a conversation of another project


def test_what_was_kept_of_the_sandbox_is_suggested_for_its_folders_only(project: Path) -> None:
    record = Record(paths.record_folder())
    record.turn("r")
    for n, folders in enumerate([["out", "out/deep"], ["out"], ["elsewhere"]]):
        same = {"run_id": "r", "tool_call_id": f"c{n}", "tool_name": "shell"}
        past(record, n, "make plots", "allow", "user")
        files = [ChangedFile(path=f"{project}/{each}/{n}.png", change="created", type="file") for each in folders]
        record.add(EffectMade, **same, outcome="made", entry="1", files=files)
    record.journal.close()
    (found,) = suggest_rules(session="s1").itertuples()
    assert (found.pattern, found.inside, found.allowed) == ("make plots", f"{project}/out", 2)
    accept(found)
    (rule,) = mn.Chat().rules()
    assert (rule.pattern, rule.folders) == ("make plots", (str(project / "out"),))
