"""Reports of one call: slow tools, denials, time, two sessions compared, backtests of rules, messages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from kits.records import Record

import mentra_nb as mn
import mentra_nb.event.types as e
from mentra_nb.authorization import PermissionRule, ToolAuthorizationPreview, ToolCapability
from mentra_nb.chat import engine as engines
from mentra_nb.chat.backtest import backtest
from mentra_nb.chat.chat import chat_on
from mentra_nb.chat.engine import Engine
from mentra_nb.chat.messages import messages
from mentra_nb.errors import ConfigurationError
from mentra_nb.permission.policy import RuntimePolicy
from mentra_nb.providers.scripted import ScriptedProvider, text, tool_calls
from mentra_nb.record.read import frames, reports
from mentra_nb.record.write.journal import Journal
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.settings import Settings
from mentra_nb.store.volatile import VolatileStore

pytestmark = pytest.mark.slow


QUESTIONS: dict[str, tuple[Callable[..., pd.DataFrame], tuple[Any, ...], int]] = {
    "slowest_tools": (reports.slowest_tools, (), 0),
    "denial_reasons": (reports.denial_reasons, (), 0),
    "reviewer_report": (reports.reviewer_report, (), 0),
    "time_spent": (reports.time_spent, (), 1),
    "compare": (reports.compare, ("s1", "s2"), 0),
    "backtest": (backtest, (["allow shell *"],), 0),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_an_answer_has_the_columns_that_are_documented(two: Record, name: str) -> None:
    ask, arguments, groups = QUESTIONS[name]
    frame, documented = ask(*arguments, folder=two.folder), mn.columns(name)
    assert list(frame.columns)[groups:] == list(documented.column)
    assert [str(dtype) for dtype in frame.dtypes][groups:] == list(documented.dtype)


@pytest.mark.parametrize("name", [name for name in QUESTIONS if name != "compare"])
def test_an_empty_record_has_the_same_columns(two: Record, tmp_path: Path, name: str) -> None:
    ask, arguments, _ = QUESTIONS[name]
    empty, full = (ask(*arguments, folder=folder) for folder in (tmp_path / "nothing", two.folder))
    assert len(empty) == 0
    assert list(map(str, empty.dtypes)) == list(map(str, full.dtypes))


# ---- time, tools, denials ----------------------------------------------------------------------------------------


def test_slowest_tools_come_first(record: Record) -> None:
    for n, (tool, ms) in enumerate([("fast", 5), ("slow", 100), ("slow", 300), ("slow", 9000), ("never", None)]):
        same = {"run_id": "r", "tool_call_id": f"c{n}", "tool_name": tool}
        record.add(e.ToolAuthorizationFinished, **same, outcome="allow", subject=f"{tool} {ms}")
        if ms is not None:
            record.add(e.ToolExecutionFinished, **same, is_error=ms == 300, output_preview="", duration_ms=ms)
    found = reports.slowest_tools(folder=record.folder)
    assert list(found.tool) == ["slow", "fast"]  # what never ran was not slow
    slow = found.iloc[0]
    assert (slow.calls, slow.errors, slow.median_s, slow.max_s, slow.slowest) == (3, 1, 0.3, 9.0, "slow 9000")
    assert (slow.p95_s, slow.seconds) == (pytest.approx(8.13), pytest.approx(9.4))


def test_denials_are_counted_by_reason(record: Record) -> None:
    for n, (by, why) in enumerate([("user", "not today"), ("user", "not today"), ("policy", "outside the project")]):
        same = {"run_id": "r", "tool_call_id": f"c{n}", "tool_name": "write"}
        record.add(e.ToolAuthorizationFinished, **same, outcome="deny", decided_by=by, reason=why, subject=f"f{n}")
    record.call("c9", "r")
    found = reports.denial_reasons(folder=record.folder)
    assert list(zip(found.decided_by, found.reason, found.calls, found.example, strict=True)) == [
        ("user", "not today", 2, "f1"),
        ("policy", "outside the project", 1, "f2"),
    ]


ADVISED = [  # risk, outcome, by whom, changed arguments
    ("high", "denied", "user", None),
    ("high", "allowed", "user", None),
    ("high", "allowed", "host", None),
    ("high", "allowed", "user", {"command": "ls"}),
    ("low", "allowed", "user", None),
    ("low", "denied", "user", None),
    ("low", "denied", "timeout", None),
    ("low", "allowed", "rule:1", None),
    ("medium", "denied", "user", None),
    ("unknown", "allowed", "user", None),
    ("high", None, None, None),
]


def test_a_reviewer_is_compared_with_the_person(record: Record) -> None:
    record.turn("r")
    for n, (risk, outcome, by, given) in enumerate(ADVISED):
        same: dict[str, Any] = {"run_id": "r", "tool_call_id": f"c{n}", "tool_name": "shell", "request_id": f"q{n}"}
        record.add(e.QuestionAsked, **same, description="", subject=f"do {n}", deadline=2e9, session_id="s1")
        record.add(e.QuestionAdvised, **same, risk=risk, reason="why", provider="p", model="m", duration_ms=1000 * n)
        if outcome is not None:
            record.add(e.QuestionAnswered, **same, outcome=outcome, decided_by=by, waited_ms=1, input=given)
    found = reports.reviewer_report(folder=record.folder).set_index("risk")
    assert list(found.index) == ["low", "medium", "high", "unknown"]
    assert list(found.advised) == [4, 1, 5, 1]
    assert list(found.allowed) == [1, 0, 2, 1]
    assert list(found.denied) == [1, 1, 1, 0]
    assert list(found.false_alarms) == [0, 0, 2, 0]
    assert list(found.misses) == [1, 0, 0, 0]
    assert list(found.share.fillna(-1)) == [0.5, -1, pytest.approx(2 / 3), -1]
    assert (found.model["low"], found.median_s["low"]) == ("p/m", 5.5)
    rows = frames.advice(folder=record.folder)
    assert list(rows.columns) == list(mn.columns("advice").column)
    assert [str(dtype) for dtype in rows.dtypes] == list(mn.columns("advice").dtype)
    assert set(rows.outcome) == {"allowed", "denied", "changed", "pending"}
    assert (rows.subject[0], rows.notebook[0], rows.session_id[0]) == ("do 0", "n.ipynb", "s1")
    assert reports.reviewer_report(model="other/m", folder=record.folder).empty
    assert "Without filters all are shown: mn.advice()" in repr(frames.advice(tool="write", folder=record.folder))


def test_time_a_person_took_beside_the_models(record: Record) -> None:
    record.one_session()
    spent = reports.time_spent(folder=record.folder).iloc[0]
    turn = frames.turns(folder=record.folder).iloc[0]
    assert (spent.session_id, spent.turns, spent.seconds, spent.human_wait_s) == ("s1", 1, 2.0, 3.0)
    assert (spent.model_s, spent.tool_s) == (turn.model_s, turn.tool_s)
    assert spent.human_share == pytest.approx(3.0 / (3.0 + turn.model_s + turn.tool_s))
    assert list(reports.time_spent("cell", folder=record.folder).columns[:2]) == ["notebook", "cell_id"]
    with pytest.raises(ConfigurationError, match="time cannot be grouped by 'tool'; use one of session, day"):
        reports.time_spent("tool", folder=record.folder)  # type: ignore[arg-type]


def test_two_sessions_side_by_side(record: Record) -> None:
    record.two_sessions()
    record.journal.close()
    record.journal = Journal(record.folder)
    record.turn("extra", "s2")
    record.call("c", "extra", "deny")
    record.end("extra", "s2", duration_ms=6000)
    found = reports.compare("talk s1", "s2", folder=record.folder).set_index("measure")
    assert list(found.loc["turns", ["first", "second", "difference", "ratio"]]) == [2, 3, 1, 1.5]
    assert list(found.loc["denials", ["first", "second"]]) == [0, 1]
    assert pd.isna(found.ratio["denials"])
    assert list(found.loc["errors", ["first", "second"]]) == [1, 1]
    assert list(found.loc["seconds", ["first", "second"]]) == [4, 10]
    assert found.unit["cost_usd"] == "USD"
    assert found["first"]["cost_usd"] == pytest.approx(frames.sessions(session="s1", folder=record.folder).cost_usd[0])


def test_an_unknown_or_ambiguous_session_is_named(two: Record) -> None:
    with pytest.raises(ConfigurationError, match="'s9' is not a session: mn"):
        reports.compare("s1", "s9", folder=two.folder)
    two.add(e.SessionStarted, session_id="s3", title="talk s1", model="m")
    with pytest.raises(ConfigurationError, match="'talk s1' names 2 sessions; take the session_id"):
        reports.compare("talk s1", "s2", folder=two.folder)


# ---- rules -------------------------------------------------------------------------------------------------------

LINES = [
    "echo hello",
    "echo hello && echo bye",
    "echo a; true",
    "echo $(true)",
    "echo hello > out.txt",
    "true",
    "true | echo x",
    "echo 'a;b'",
    "if true; then echo x; fi",
]
RULES = [
    [],
    ["allow shell echo *"],
    ["allow shell *"],
    ["allow shell echo *", "allow shell true"],
    ["allow shell *", "deny shell true"],
    ["deny shell *"],
    ["deny shell echo *", "allow shell echo hello"],
    ["allow shell echo $(true)", "allow shell echo hello > out.txt"],
    ["allow shell", "deny write *"],
]


@pytest.mark.parametrize("rules", RULES, ids=" + ".join)
def test_a_backtest_agrees_with_live_decisions(tmp_path: Path, rules: list[str]) -> None:
    """The same lines are put to a real session with these rules, and to the record of a session without."""

    def decided(rules: list[str], folder: Path) -> list[str]:
        turns = [tool_calls([("shell", {"command": line})]) for line in LINES]
        runtime = Runtime(
            [ScriptedProvider([*turns, text("done")])],
            policy=RuntimePolicy.for_notebook(),
            store=VolatileStore(),
            audit=Journal(folder),
            working_directory=tmp_path,
        )
        engine = Engine(Settings(model="scripted/scripted", sandbox="off"), runtime)
        try:
            chat = chat_on(engine, "talk")
            for rule in rules:
                verb, tool, *pattern = rule.split(None, 2)
                getattr(chat, verb)(tool, *pattern)
            chat.ask("run them")
        finally:
            engine.close()
        by = frames.decisions(folder=folder)
        assert list(by.subject) == LINES
        return ["ask" if each.decided_by == "headless" else str(each.outcome) for each in by.itertuples()]

    live = decided(rules, tmp_path / "live")
    decided([], tmp_path / "past")
    assert list(backtest(rules, folder=tmp_path / "past").verdict) == live
    assert list(backtest(rules, folder=tmp_path / "live").verdict) == live


def test_a_call_that_changed_nothing_in_the_sandbox_stays_allowed_where_changes_are_asked_about(
    record: Record,
) -> None:
    past(record, "shell", "true", "allow", "sandbox")
    verdicts = {ask: backtest([], ask=ask, folder=record.folder).verdict.tolist() for ask in ("changes", "always")}
    assert verdicts == {"changes": ["allow"], "always": ["ask"]}
    assert backtest(["deny shell true"], folder=record.folder).verdict.tolist() == ["deny"]


def past(record: Record, tool: str, subject: str | None, outcome: str, by: str, reads_only: bool = False) -> None:
    n = len(frames.decisions(folder=record.folder))
    same = {"run_id": "r", "tool_call_id": f"c{n}", "tool_name": tool}
    capabilities = (ToolCapability.READ_ONLY,) if reads_only else ()
    preview = ToolAuthorizationPreview(working_directory="/", capabilities=capabilities)
    record.add(e.ToolAuthorizationStarted, **same, preview=preview)
    record.add(e.ToolAuthorizationFinished, **same, outcome=outcome, decided_by=by, subject=subject)


@pytest.mark.parametrize(
    ("call", "rules", "ask", "verdict", "why"),
    [
        (("write", "a.md", "allow", "user"), [], "changes", "ask", "no rule"),
        (("write", "a.md", "allow", "user"), [], "rules", "deny", "no rule"),
        (("write", "a.md", "deny", "user"), ["allow write *.md"], "changes", "allow", "rule"),
        (("read", "a.md", "allow", "setting", True), [], "changes", "allow", "runs unasked"),
        (("read", "a.md", "allow", "user", True), [], "changes", "allow", "runs unasked"),
        (("read", "a.md", "allow", "setting", True), [], "always", "ask", "no rule"),
        (("revenue", "{}", "allow", "setting"), [], "changes", "allow", "runs unasked"),
        (("read", "a.md", "allow", "setting", True), ["deny read *"], "changes", "deny", "rule"),
        (("write", "/etc/x", "deny", "policy"), ["allow write *"], "changes", "deny", "refused by the policy"),
        (("rite", "x", "deny", "runtime"), ["allow rite *"], "changes", "deny", "refused by the runtime"),
        (("write", "a", "deny", "authorizer"), ["allow write *"], "changes", "deny", "refused by the application"),
        (("write", "a", "allow", "authorizer"), [], "changes", "allow", "decided by the application"),
        (("write", "a", "prompt", "authorizer"), [], "changes", "ask", "decided by the application"),
        (("write", "a", "allow", "authorizer"), ["deny write a"], "changes", "deny", "rule"),
        # texts that are not what they were
        (("write", "", "allow", "user"), ["allow write a*"], "changes", "unknown", "not kept"),
        (("write", None, "allow", "user"), ["allow write *", "deny write a"], "changes", "unknown", "not kept"),
        (("write", None, "allow", "user"), ["allow write *"], "changes", "allow", "rule"),
        (("write", None, "allow", "user"), ["deny write *"], "changes", "deny", "rule"),
        (("write", None, "allow", "user"), ["allow shell *"], "changes", "ask", "no rule"),
        (("shell", None, "allow", "user"), ["allow shell *"], "changes", "unknown", "not kept"),
        (("shell", "login password=hunter22", "allow", "user"), ["deny shell *x*"], "changes", "unknown", "not kept"),
        (("write", "a" * 9000, "allow", "user"), ["allow write a*"], "changes", "unknown", "not kept"),
        (("write", "'; DROP VIEW events; --", "allow", "user"), ["deny write ';*"], "changes", "deny", "rule"),
    ],
)
def test_a_backtest_of_one_call(record: Record, call: Any, rules: Any, ask: Any, verdict: str, why: str) -> None:
    past(record, *call)
    (found,) = backtest(rules, ask=ask, folder=record.folder).itertuples()
    assert found.verdict == verdict
    assert why in found.why
    assert pd.isna(found.rule) == (found.why != "rule")


def test_rules_in_every_form(record: Record) -> None:
    past(record, "write", "a.md", "allow", "user")
    past(record, "read", "a.md", "allow", "user")
    rule = PermissionRule(id="1", tool="write", pattern="*.md", allow=True, scope="session", scope_key="another")
    frame = pd.DataFrame({"tool": ["write"], "pattern": ["*.md"], "allow": [True], "scope": ["project"]})
    for rules in (["allow write *.md"], [rule], frame, iter([rule])):
        found = backtest(rules, folder=record.folder)
        assert list(found.verdict) == ["allow", "ask"]
        assert found.rule[0] == "allow write *.md"
    assert list(backtest([rule], tool="read", folder=record.folder).tool) == ["read"]
    for wrong in ("permit write *", "allow", ""):
        with pytest.raises(ConfigurationError, match="is not a rule: write it as 'allow shell git status"):
            backtest([wrong], folder=record.folder)


# ---- messages ----------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("MENTRA_HOME", str(tmp_path))
    engines.reset()
    yield tmp_path
    engines.reset()


@pytest.mark.parametrize("name", ["talk", "o'clock\"; DROP TABLE sessions; --"])
def test_messages_of_a_stored_session(home: Path, name: str) -> None:
    replies = [mn.Chat(name).ask(prompt, model="demo") for prompt in ("hello", "and again")]
    found, documented = messages(name), mn.columns("messages")
    assert list(found.columns) == list(documented.column)
    assert [str(dtype) for dtype in found.dtypes] == list(documented.dtype)
    said = found[found.kind != "tool_exchange"]
    assert list(said.text[said.role == "user"]) == ["hello", "and again"]
    assert replies[-1].text == said.text.iloc[-1]
    assert set(found.run_id) == set(frames.turns(session=name).run_id) == {reply.turn_id for reply in replies}
    assert found.ts.is_monotonic_increasing
    assert json.loads(found.parts[0]) == [{"type": "text", "text": "hello"}]
    pd.testing.assert_frame_equal(messages(replies[0].session), found)


def test_messages_of_the_notebooks_own_conversation(home: Path) -> None:
    with pytest.raises(ConfigurationError, match="has no conversation yet"):
        messages()
    mn.ask("hello", model="demo")
    assert messages().text[0] == "hello"
    with pytest.raises(ConfigurationError, match="there is no session 'nobody'"):
        messages("nobody")
