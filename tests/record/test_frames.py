"""The record as DataFrames: each column, pairing, cost, and what `sql` refuses."""

from __future__ import annotations

import getpass
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pandas as pd
import pytest
from kits.records import SONNET, Record, only

import mentra_nb as mn
import mentra_nb.event.types as e
from mentra_nb import pricing
from mentra_nb.content import TokenUsage
from mentra_nb.effect.journal import JournalEntry
from mentra_nb.effect.types import FileChange, FileState
from mentra_nb.errors import ConfigurationError, OperationDenied
from mentra_nb.event.effects import MAX_FILES, EffectMade, effects_made
from mentra_nb.record import schema
from mentra_nb.record.keep.compact import compact, compact_later
from mentra_nb.record.keep.verify import verify
from mentra_nb.record.parquet import connection, write_parquet
from mentra_nb.record.read import frames, reports, view_sql, views
from mentra_nb.record.write import journal

pytestmark = pytest.mark.slow

FRAMES: dict[str, Callable[..., pd.DataFrame]] = {
    "events": frames.events,
    "sessions": frames.sessions,
    "turns": frames.turns,
    "model_calls": frames.model_calls,
    "tool_calls": frames.tool_calls,
    "decisions": frames.decisions,
    "usage": frames.usage,
}


# ---- shape -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_has_the_columns_that_are_documented(full: Record, name: str) -> None:
    frame, documented = FRAMES[name](folder=full.folder), mn.columns(name)
    assert list(frame.columns) == list(documented.column)
    assert [str(dtype) for dtype in frame.dtypes] == list(documented.dtype)
    assert documented.meaning.str.len().min() > 4


@pytest.mark.parametrize(
    "name",
    [
        *FRAMES,
        "rule_changes",
        "effects",
        "advice",
        "feedback",
        "slowest_tools",
        "denial_reasons",
        "reviewer_report",
        "time_spent",
        "compare",
        "backtest",
        "messages",
    ],
)
def test_help_says_what_the_columns_are(name: str) -> None:
    said = getattr(mn, name).__doc__
    for column in mn.columns(name).itertuples():
        assert f"    {column.column}" in said
        assert column.meaning in said


def test_an_unknown_frame_is_refused() -> None:
    assert set(FRAMES) < set(mn.columns().frame)
    with pytest.raises(ConfigurationError, match="there is no frame 'colours'; there are events, sessions"):
        mn.columns("colours")


@pytest.mark.parametrize(("name", "options"), [("verify", {}), ("prune", {"keep_days": 0, "dry_run": True})])
def test_upkeep_answers_with_the_columns_that_are_documented(full: Record, name: str, options: dict[str, Any]) -> None:
    frame, documented = getattr(mn, name)(folder=full.folder, **options), mn.columns(name)
    assert len(frame) == 1
    assert list(frame.columns) == list(documented.column)
    assert [str(dtype) for dtype in frame.dtypes] == list(documented.dtype)


@pytest.mark.parametrize(("name", "by"), [("usage by group", "model"), ("usage by tool", "tool")])
def test_groups_have_the_columns_that_are_documented(full: Record, name: str, by: Any) -> None:
    frame, documented = frames.usage(by, folder=full.folder), mn.columns(name)
    groups = 1 if by == "model" else 0
    assert list(frame.columns)[groups:] == list(documented.column)
    assert [str(dtype) for dtype in frame.dtypes][groups:] == list(documented.dtype)


@pytest.mark.parametrize("name", FRAMES)
def test_no_record_gives_an_empty_frame_of_the_same_shape_and_no_file(full: Record, tmp_path: Path, name: str) -> None:
    empty = FRAMES[name](folder=tmp_path / "nothing")
    assert len(empty) == 0
    assert not (tmp_path / "nothing").exists()
    assert list(map(str, empty.dtypes)) == list(map(str, FRAMES[name](folder=full.folder).dtypes))


def test_the_default_folder_is_the_users_record(full: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MENTRA_RECORD", str(full.folder))
    assert len(frames.turns()) == 1


@pytest.mark.parametrize("name", FRAMES)
def test_times_are_utc(full: Record, name: str) -> None:
    frame = FRAMES[name](folder=full.folder)
    when = frame["started" if name == "sessions" else "ts"]
    assert str(when.dtype) == "datetime64[us, UTC]"
    assert abs(when.iloc[0].timestamp() - time.time()) < 120


@pytest.mark.parametrize("name", FRAMES)
def test_an_empty_frame_says_why(full: Record, tmp_path: Path, name: str) -> None:
    nothing = FRAMES[name](folder=tmp_path / "nothing")
    words = name.replace("_", " ")
    said, columns = repr(nothing).split("\nColumns:")
    assert said == (
        f"No {words} yet: none are recorded in {tmp_path / 'nothing'}. "
        "Ask something first: %mentra what can you do here?"
    )
    assert columns.strip().split(", ") == list(nothing.columns)
    found = FRAMES[name](folder=full.folder, session="<b>")
    assert f"No {words} with session='<b>' in " in repr(found)
    assert "&lt;b&gt;" in found._repr_html_()
    assert type(found.head()) is pd.DataFrame  # what is derived from it says nothing


# ---- rows --------------------------------------------------------------------------------------------------------


def test_events_are_in_order_with_their_payload(full: Record) -> None:
    frame = frames.events(folder=full.folder)
    assert list(frame.seq) == list(range(len(frame)))
    assert frame.kind.iloc[0] == "session_started"
    assert [json.loads(payload)["kind"] for payload in frame.payload] == list(frame.kind)


def test_a_turn(full: Record) -> None:
    turn = only(frames.turns(folder=full.folder))
    assert (turn.session_id, turn.run_id, turn.cell_id, turn.execution_count) == ("s1", "r1", "cell-9", 7)
    assert (turn.prompt, turn.stop_reason, turn.seconds, turn.notebook, turn.project) == (
        "list files",
        "end",
        2.0,
        "n.ipynb",
        "p",
    )
    assert (turn.tools, turn.denials, turn.total_tokens, turn.input_tokens, turn.output_tokens) == (
        3,
        1,
        1800 + 2050,
        3000,
        150,
    )
    assert turn.priced == 1


def test_a_running_turn_has_no_stop_reason(record: Record) -> None:
    record.turn("r1")
    turn = only(frames.turns(folder=record.folder))
    assert pd.isna(turn.stop_reason)
    assert pd.isna(turn.seconds)
    assert turn.tools == 0


def test_a_session_says_where_the_time_went(full: Record) -> None:
    session = only(frames.sessions(folder=full.folder))
    assert (session.session_id, session.title, session.turns, session.tools, session.denials) == (
        "s1",
        "Files",
        1,
        3,
        1,
    )
    assert session.human_wait_s == 3.0
    assert session.tool_s == pytest.approx(0.08)
    assert session.model_s == pytest.approx(frames.model_calls(folder=full.folder).seconds.sum())
    assert session.cost_usd == pytest.approx(frames.usage(folder=full.folder).cost_usd.sum())


def test_tool_calls_pair_start_decision_and_end(full: Record) -> None:
    calls = frames.tool_calls(folder=full.folder).set_index("call_id")
    assert list(calls.outcome) == ["ok", "denied", "error"]
    assert list(calls.decision) == ["allow", "deny", "allow"]
    assert list(calls.decided_by) == ["user", "user", "rule"]
    assert list(calls.rule_id.fillna("")) == ["", "", "1"]
    assert list(calls.wait_s) == [1.5, 1.5, 0]
    assert json.loads(calls.input["c1"]) == json.loads(calls.input["c2"]) == {"command": "ls"}
    assert (calls.seconds["c1"], calls.output["c1"], calls.error["c3"]) == (0.04, "a.txt", "exit 1")
    assert pd.isna(calls.seconds["c2"])
    assert set(calls.session_id) == {"s1"}


def test_an_interrupted_call_is_unfinished(record: Record) -> None:
    record.call("c1", "r1", "allow", ok=None)
    assert only(frames.tool_calls(folder=record.folder)).outcome == "unfinished"


def test_the_duration_of_a_call_whose_process_died_is_unknown(record: Record) -> None:
    record.turn("r1")
    record.call("c1", "r1", "allow", ok=None)
    same = {"run_id": "r1", "tool_call_id": "c1", "tool_name": "shell"}
    unknown = {
        "is_error": True,
        "error": "not known",
        "output_preview": "not known",
        "duration_ms": None,
    }  # by recovery
    record.add(e.ToolExecutionFinished, **same, **unknown)
    call = only(frames.tool_calls(folder=record.folder))
    assert (call.outcome, call.error) == ("error", "not known")
    assert pd.isna(call.seconds)
    assert only(frames.turns(folder=record.folder)).tool_s == 0


def test_the_same_call_id_in_two_runs_is_two_calls(record: Record) -> None:
    record.call("c1", "r1", "allow")
    record.call("c1", "r2", "deny", asked=True)
    calls = frames.tool_calls(folder=record.folder).set_index("run_id")
    assert (calls.outcome["r1"], calls.outcome["r2"]) == ("ok", "denied")
    assert len(frames.decisions(folder=record.folder)) == 2


def test_decisions_say_who_what_why_and_after_how_long(full: Record) -> None:
    decisions = frames.decisions(folder=full.folder).set_index("call_id")
    denied = decisions.loc["c2"]
    assert (denied.outcome, denied.decided_by, denied.reason, denied.wait_s) == ("deny", "user", "because", 1.5)
    assert (denied.tool, denied.subject, denied.description, denied.scope) == ("shell", "ls", "no rule", "project")
    assert denied.deadline == pd.Timestamp(2_000_000_000, unit="s", tz="UTC")
    assert list(decisions.outcome) == ["allow", "deny", "allow"]
    assert decisions.request_id["c3"] is pd.NA


def test_a_question_nobody_answered_is_pending(record: Record) -> None:
    record.turn("r1")
    record.call("c1", "r1", None, asked=True)
    decision = only(frames.decisions(folder=record.folder))
    assert (decision.outcome, decision.subject, decision.session_id) == ("pending", "ls", "s1")
    assert pd.isna(decision.decided_by)
    assert only(frames.tool_calls(folder=record.folder)).outcome == "pending"


def test_a_question_answered_just_before_a_crash_is_no_longer_pending(record: Record) -> None:
    same = {"run_id": "r1", "tool_call_id": "c1", "tool_name": "shell", "request_id": "p1"}
    record.add(e.QuestionAsked, **same, description="", subject="ls", deadline=1.0)
    record.add(e.QuestionAnswered, **same, outcome="denied", decided_by="timeout", waited_ms=10)
    decision = only(frames.decisions(folder=record.folder))
    assert (decision.outcome, decision.decided_by) == ("deny", "timeout")


def test_attempts_of_one_round_are_a_row_each(record: Record) -> None:
    record.turn("r1")
    same = {"run_id": "r1", "model": SONNET[1], "provider": SONNET[0]}
    for n in (1, 2):
        record.add(e.ModelRequestStarted, **same, attempt=n, request_id=f"q{n}")
        record.add(e.ModelRequestFinished, **same, attempt=n, request_id=f"q{n}", success=False, error="529")
    record.response("q3", "r1", TokenUsage(input_tokens=10, output_tokens=1), stop_reason="end_turn")
    record.add(e.ModelRequestStarted, **same, attempt=1, request_id="q4")
    calls = frames.model_calls(folder=record.folder)
    assert list(calls.request_id) == ["q1", "q2", "q3", "q4"]
    assert list(calls.outcome) == ["error", "error", "ok", "unfinished"]
    assert (calls.error[0], calls.stop_reason[2], calls.total_tokens[2]) == ("529", "end_turn", 11)
    assert (calls.seconds[:3] >= 0).all()
    assert pd.isna(calls.seconds[3])
    turn = only(frames.turns(folder=record.folder))
    assert turn.total_tokens == 11
    assert turn.model_s == pytest.approx(calls.seconds.sum())
    assert only(frames.sessions(folder=record.folder)).model_s == pytest.approx(calls.seconds.sum())


def test_an_answer_that_was_never_finished_has_no_duration(record: Record) -> None:
    record.turn("r1")
    same = {"run_id": "r1", "model": SONNET[1], "provider": SONNET[0], "attempt": 1, "request_id": "q1"}
    record.add(e.ModelRequestStarted, **same)
    record.add(e.ModelRequestFinished, **same, success=True)
    call = only(frames.model_calls(folder=record.folder))
    assert call.outcome == "unfinished"
    assert pd.isna(call.seconds)
    assert only(frames.turns(folder=record.folder)).model_s == 0


def test_live_events_of_another_process_are_seen(record: Record) -> None:
    code = f"""
import sys
from pathlib import Path
from mentra_nb.record.write.journal import Journal
j = Journal(Path({str(record.folder)!r}))
j.record_audit_event("agent-2", "run_aborted", {{"agent_id": "agent-2", "reason": "x"}})
print("written", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "written\n"
        event = only(frames.events(folder=record.folder))
    assert (event.agent_id, event.reason) == ("agent-2", "x")


# ---- filters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("session", ["s2", "talk s2", ["s2", "nobody"]])
def test_a_session_by_id_or_name(two: Record, name: str, session: str | list[str]) -> None:
    every = FRAMES[name](folder=two.folder)
    found = FRAMES[name](folder=two.folder, session=session)
    assert len(found) == len(every) / 2
    if name != "events":
        assert set(found.session_id) == {"s2"}
    if name == "turns":
        pd.testing.assert_frame_equal(found, every.iloc[2:].reset_index(drop=True))


@pytest.mark.parametrize("name", FRAMES)
def test_a_time_filter_keeps_rows_whole(two: Record, name: str) -> None:
    every = FRAMES[name](folder=two.folder)
    begin = frames.turns(folder=two.folder).ts[2]
    later, earlier = FRAMES[name](folder=two.folder, since=begin), FRAMES[name](folder=two.folder, until=begin)
    assert len(later) > 0
    if name == "sessions":  # the sessions with an event in that time
        assert (list(later.session_id), list(earlier.session_id)) == (["s2"], ["s1", "s2"])
        pd.testing.assert_frame_equal(later, every.iloc[1:].reset_index(drop=True))
        return
    assert (later.ts >= begin).all()
    assert (earlier.ts < begin).all()
    before, after, both = (frame.to_csv(header=False, index=False) for frame in (earlier, later, every))
    assert before + after == both


@pytest.mark.parametrize(
    ("since", "rows"),
    [
        (timedelta(hours=1), 4),
        (timedelta(0), 0),
        ("2026-01-01", 4),
        ("2999-01-01T00:00:00+02:00", 0),
        (date(2026, 1, 1), 4),
        (datetime(2999, 1, 1), 0),
        (pd.Timestamp("2026-01-01", tz="Asia/Tokyo"), 4),
    ],
)
def test_a_time_in_many_forms(two: Record, since: Any, rows: int) -> None:
    assert len(frames.turns(since=since, folder=two.folder)) == rows


def test_a_text_that_is_not_a_time_is_refused(two: Record) -> None:
    with pytest.raises(ConfigurationError, match="'soon' is not a time: write it as 2026-03-01"):
        frames.turns(since="soon", folder=two.folder)


def test_filters_by_value(two: Record) -> None:
    here = {"folder": two.folder}
    assert set(frames.tool_calls(tool="shell", **here).run_id) == {"s1-r1", "s2-r1"}
    assert set(frames.tool_calls(outcome="error", session="s1", **here).run_id) == {"s1-r2"}
    assert set(frames.events(kind=["turn_started", "turn_finished"], run="s1-r1", **here).kind) == {
        "turn_started",
        "turn_finished",
    }
    assert len(frames.events(tool="write", **here)) == 8
    assert len(frames.decisions(outcome="deny", **here)) == 0
    assert len(frames.decisions(decided_by="rule", rule_id="1", tool=["shell", "write"], **here)) == 4
    assert len(frames.turns(notebook="n.ipynb", cell="cell-9", model=SONNET[1], **here)) == 4
    assert len(frames.model_calls(model="another", **here)) == 0
    assert len(frames.sessions(project="p", model=SONNET[1], **here)) == 2
    assert only(frames.usage("session", session="s1", **here)).input_tokens == 20


HOSTILE = ["'); DROP VIEW events; --", '" OR 1=1 --', "a'b\"c`d", "%", "\u202eshell\0", "$1", "{}", "'; ATTACH 'x"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_values_and_not_sql(record: Record, tmp_path: Path, text: str) -> None:
    strange = Record(tmp_path / 'it\'s a "record"; --')
    for n, name in enumerate((text, "shell")):
        strange.turn(f"r{n}", name)
        strange.response(f"q{n}", f"r{n}", TokenUsage(input_tokens=1))
        strange.call(f"c{n}", f"r{n}", "deny", tool=name)
    strange.journal.close()
    here = {"folder": strange.folder}
    assert [only(frames.tool_calls(tool=text, **here)).tool] == [text]
    assert [only(frames.turns(session=text, **here)).session_id] == [text]
    assert only(frames.sql("SELECT count(*) AS n FROM tool_calls WHERE tool = ?", [text], **here)).n == 1
    assert only(frames.sql("SELECT count(*) AS n FROM tool_calls WHERE tool = $it", {"it": text}, **here)).n == 1
    for frame in FRAMES.values():
        assert len(frame(session=text, **here)) == len(frame(**here)) / 2


# ---- cost --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "model", "listed", "usage", "counts"),
    [
        (*SONNET, "anthropic", {"input_tokens": 1000, "cache_read_input_tokens": 500, "cache_creation_input_tokens": 200},  # noqa: E501
         {"input_tokens": 1700, "cache_read_tokens": 500, "cache_write_tokens": 200}),
        (*SONNET, "anthropic", {"input_tokens": 150_000, "cache_read_input_tokens": 100_000},
         {"input_tokens": 250_000, "cache_read_tokens": 100_000}),
        ("openai", "gpt-4o", "openai", {"input_tokens": 1000, "cache_read_input_tokens": 500},
         {"input_tokens": 1000, "cache_read_tokens": 500}),
        ("gemini", "gemini-2.5-pro", "google", {"input_tokens": 200_001, "thoughts_tokens": 900},
         {"input_tokens": 200_001, "thoughts": 900}),
        ("gemini", "gemini-2.5-pro", "google", {"input_tokens": 200_000}, {"input_tokens": 200_000}),
        ("deepseek", "deepseek-chat", "deepseek", {"input_tokens": 5000}, {"input_tokens": 5000}),
    ],
)  # fmt: skip
def test_cost_is_what_the_price_list_says(
    record: Record, provider: str, model: str, listed: str, usage: dict[str, int], counts: dict[str, int]
) -> None:
    from genai_prices import Usage, calc_price

    output = 321 + counts.pop("thoughts", 0)
    tokens = TokenUsage(output_tokens=321, **usage)
    record.response("q1", "r1", tokens, of=(provider, model))
    row = only(frames.usage(folder=record.folder))
    at = row.ts.to_pydatetime()
    counted = Usage(output_tokens=output, **counts)
    expected = float(calc_price(counted, model, provider_id=listed, genai_request_timestamp=at).total_price)
    assert expected > 0
    assert row.cost_usd == pytest.approx(expected)
    assert pricing.cost_usd(provider, model, tokens, at) == pytest.approx(expected)
    assert only(frames.model_calls(folder=record.folder)).cost_usd == pytest.approx(expected)


@pytest.mark.parametrize("client", ["UTC", "Asia/Tokyo", "America/Los_Angeles"])
def test_prices_change_by_day_and_time_of_day_in_utc_wherever_the_client_is(
    record: Record, monkeypatch: pytest.MonkeyPatch, client: str
) -> None:
    from genai_prices import Usage, calc_price

    of, tokens = ("deepseek", "deepseek-chat"), TokenUsage(input_tokens=5000, output_tokens=321)
    days = {row[2] for row in pricing.price_rows(*of)} - {date.min, date(1970, 1, 1)} or {date(2025, 8, 1)}
    clocks = [(0, 0), (0, 29, 59), (0, 30), (12, 0), (16, 29, 59), (16, 30), (23, 59, 59)]
    moments = [
        datetime(*(day + timedelta(days=n)).timetuple()[:3], *clock, tzinfo=UTC)
        for day in sorted(days)
        for n in (-1, 0, 1)
        for clock in clocks
    ]
    for n, moment in enumerate(moments):
        clock_now = SimpleNamespace(time=moment.timestamp, monotonic=time.monotonic)
        monkeypatch.setattr(journal, "time", clock_now)
        record.response(f"q{n}", "r1", tokens, of=of)
    expected = [
        float(calc_price(Usage(input_tokens=5000, output_tokens=321), of[1], provider_id=of[0],
                         genai_request_timestamp=moment).total_price)
        for moment in moments
    ]  # fmt: skip
    assert len(set(expected)) > 1
    assert list(frames.usage(folder=record.folder).cost_usd) == pytest.approx(expected)
    record.journal.close()
    views.write_database(record.folder)
    with duckdb.connect(str(record.folder / "record.duckdb"), read_only=True) as con:
        con.execute(f"SET TimeZone = '{client}'")
        rows = con.execute("SELECT cost_usd, day FROM usage ORDER BY ts").fetchall()
    assert [cost for cost, _ in rows] == pytest.approx(expected)
    assert [day for _, day in rows] == [moment.date() for moment in moments]


@pytest.mark.parametrize("of", [("replay", "gpt-4o"), ("lab", "gpt-oss"), ("openai", "no-such-model")])
def test_an_unknown_price_is_null_and_never_zero(record: Record, of: tuple[str, str]) -> None:
    record.turn("r1")
    record.response("q1", "r1", TokenUsage(input_tokens=10, output_tokens=5), of=of)
    for frame in (frames.usage, frames.turns, frames.sessions, frames.model_calls):
        row = only(frame(folder=record.folder))
        assert pd.isna(row.cost_usd)
        assert row.total_tokens == 15
    assert only(frames.usage("model", folder=record.folder)).priced == 0
    assert pricing.cost_usd(*of, TokenUsage(input_tokens=10)) is None


def test_prices_do_not_overlap() -> None:
    for provider, model in [SONNET, ("deepseek", "deepseek-chat"), ("gemini", "gemini-2.5-pro")]:
        rows = pricing.price_rows(provider, model)
        corners = {(row[2], str(row[4]), row[6]) for row in rows}
        assert len(corners) == len(rows) >= 2


PRICES = "provider,model,input_mtok,output_mtok,cache_read_mtok,cache_write_mtok\n"


def test_custom_prices_come_first(record: Record) -> None:
    tokens = TokenUsage(input_tokens=1_000_000, output_tokens=1_000_000, cache_read_input_tokens=500_000)
    for n, of in enumerate((("lab", "m"), ("server", "any"), SONNET)):
        record.response(f"q{n}", "r1", tokens, of=of)
    listed = frames.usage(folder=record.folder).cost_usd
    assert list(listed.isna()) == [True, True, False]
    (record.folder / "prices.csv").write_text(f"{PRICES}lab,m,1.0,2.0,0.5,\nserver,*,0,0,,\n", encoding="utf-8")
    assert list(frames.usage(folder=record.folder).cost_usd) == [2.75, 0, listed[2]]
    assert list(frames.usage("model", folder=record.folder).priced) == [1, 1, 1]
    assert pricing.cost_usd("lab", "m", tokens, folder=record.folder) == 2.75
    (record.folder / "prices.csv").write_text(f"{PRICES}{','.join(SONNET)},1,1,1,1\n", encoding="utf-8")
    assert list(frames.usage(folder=record.folder).cost_usd.isna()) == [True, True, False]
    assert frames.usage(folder=record.folder).cost_usd[2] == 2.5
    (record.folder / "prices.csv").unlink()
    assert frames.usage(folder=record.folder).cost_usd[2] == listed[2]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("provider,model\nlab,m\n", "line 2: 'input_mtok'"),
        (f"{PRICES}lab,m,1,2,,\nlab,n,cheap,2,,\n", "line 3: could not convert"),
        (f"{PRICES}lab,m,-1,2,,\n", "line 2: a price must be a finite number"),
        (f"{PRICES}lab,m,nan,2,,\n", "line 2: a price must be a finite number"),
        (f"{PRICES}lab,m\n", "line 2: "),
        (f'{PRICES}"lab', "cannot be read: unexpected end of data"),
    ],
)
def test_an_invalid_price_is_named(record: Record, text: str, problem: str) -> None:
    record.response("q", "r1", TokenUsage(input_tokens=1), of=("lab", "m"))
    (record.folder / "prices.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=problem):
        frames.usage(folder=record.folder)


def test_usage_by_group(full: Record) -> None:
    by_model = only(frames.usage("model", folder=full.folder))
    assert (by_model.model, by_model.responses, by_model.input_tokens) == ("/".join(SONNET), 2, 3000)
    assert by_model.priced == 1
    assert only(frames.usage("provider", folder=full.folder)).provider == "anthropic"
    assert only(frames.usage("session", folder=full.folder)).session_id == "s1"
    assert only(frames.usage("day", folder=full.folder)).day.date() == datetime.now(UTC).date()
    tools = only(frames.usage("tool", folder=full.folder))
    assert (tools.tool, tools.calls, tools.ok, tools.errors, tools.denied, tools.wait_s) == ("shell", 3, 1, 1, 1, 3.0)
    by_cell = only(frames.usage("cell", folder=full.folder))
    assert (by_cell.notebook, by_cell.cell_id) == ("n.ipynb", "cell-9")
    for by, name in (("notebook", "n.ipynb"), ("project", "p"), ("agent", "agent-1"), ("run", "r1")):
        assert only(frames.usage(by, folder=full.folder)).iloc[0] == name
    both = only(frames.usage(["day", "model"], folder=full.folder))
    assert list(both.index[:3]) == ["day", "model", "responses"]
    with pytest.raises(ConfigurationError, match="usage by tool cannot be filtered by model"):
        frames.usage("tool", model=SONNET[1], folder=full.folder)
    with pytest.raises(ConfigurationError, match="model, provider, day"):
        frames.usage("colour", folder=full.folder)  # type: ignore[arg-type]


# ---- sql ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) AS n FROM events",
        "FROM turns",
        "WITH t AS (SELECT 1 AS n) FROM t",
        "-- why\nSELECT 1;",
        "VALUES (1)",
        "DESCRIBE events",
        "EXPLAIN SELECT * FROM usage",
        "explain analyze select 1",
        "EXPLAIN (FORMAT json) SELECT 1",
    ],
)
def test_sql_answers_one_select(full: Record, query: str) -> None:
    assert len(frames.sql(query, folder=full.folder)) >= 1


@pytest.mark.parametrize(
    "query",
    [
        "COPY (SELECT 1) TO '{out}'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{out}'",
        "explain(analyze) copy (select 1) to '{out}'",
        "/**/ EXPLAIN ANALYZE COPY (SELECT 1) TO '{out}'",
        "EXPLAIN /* SELECT 1 */ ANALYZE COPY (SELECT 1) TO '{out}'",
        "EXPLAIN ANALYZE INSERT INTO prices SELECT * FROM prices",
        "ATTACH '{out}'",
        "ATTACH '{out}' AS x; SELECT 1",
        "INSTALL httpfs",
        "LOAD httpfs",
        "PRAGMA threads=1",
        "SET threads=1",
        "CREATE TABLE t AS SELECT 1",
        "CREATE MACRO f() AS 1",
        "INSERT INTO prices SELECT * FROM prices",
        "DELETE FROM prices",
        "UPDATE prices SET model = ''",
        "DROP VIEW events",
        "EXPORT DATABASE '{out}'",
        "IMPORT DATABASE '{out}'",
        "CHECKPOINT",
        "CALL pragma_version()",
        "USE memory",
        "SELECT 1; SELECT 2",
        "SELECT 1; COPY (SELECT 1) TO '{out}'",
        "",
        "-- nothing",
        "SELECT * FROM read_text('/etc/passwd')",
        "FROM read_csv('{secret}')",
        "FROM glob('/etc/*')",
        "FROM '{secret}'",
        "FROM read_blob('{folder}/../secret.csv')",
        "SELECT (SELECT content FROM read_text('{secret}'))",
    ],
)
def test_sql_refuses_all_else(full: Record, tmp_path: Path, query: str) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    query = query.format(out=full.folder / "out", secret=tmp_path / "secret.csv", folder=full.folder)
    with pytest.raises((OperationDenied, duckdb.CatalogException, duckdb.ParserException, duckdb.IOException)):
        frames.sql(query, folder=full.folder)
    assert not (full.folder / "out").exists()


def test_a_refusal_says_what_to_do(full: Record) -> None:
    with pytest.raises(OperationDenied, match=r"one SELECT.*this is COPY; write it as a SELECT"):
        frames.sql("COPY (SELECT 1) TO 'x'", folder=full.folder)
    with pytest.raises(OperationDenied, match="no other file"):
        frames.sql("FROM read_text('/etc/passwd')", folder=full.folder)


def test_sql_sees_no_python_variable(full: Record) -> None:
    folder = pd.DataFrame({"a": [1]})  # noqa: F841  # what a replacement scan would find
    with pytest.raises(duckdb.CatalogException):
        frames.sql("FROM folder", folder=full.folder)
    with pytest.raises(duckdb.CatalogException):
        frames.sql("FROM frame", folder=full.folder)


# ---- on disk -----------------------------------------------------------------------------------------------------


def test_any_duckdb_client_sees_the_views_live(record: Record) -> None:
    record.turn("r1")
    record.journal.close()
    views.write_database(record.folder)
    with duckdb.connect(str(record.folder / "record.duckdb"), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM turns").fetchone() == (1,)
        record.turn("r2")
        assert con.execute("SELECT count(*) FROM turns").fetchone() == (2,)
        for name in view_sql.VIEWS:
            con.execute(f"SELECT count(COLUMNS(*)) FROM {name}").fetchall()
    assert len(frames.turns(folder=record.folder)) == 2


def test_clients_of_older_duckdb_can_open_the_database(record: Record) -> None:
    record.turn("r1")
    file = views.write_database(record.folder)
    with duckdb.connect() as con:
        con.execute(f"ATTACH '{file}' AS record (READ_ONLY)")
        tags = con.execute("SELECT tags FROM duckdb_databases() WHERE database_name = 'record'").fetchone()
    assert tags == ({"storage_version": "v1.0.0+"},)


def test_a_client_that_holds_the_database_blocks_nothing(record: Record) -> None:
    record.turn("r1")
    record.journal.close()
    views.write_database(record.folder)
    with duckdb.connect(str(record.folder / "record.duckdb")):
        record.turn("r2")
        assert len(frames.turns(folder=record.folder)) == 2


def test_the_database_is_rewritten_for_another_schema(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    record.turn("r1")
    record.journal.close()
    views.write_database(record.folder)
    assert views.refresh_database_later(record.folder) is None
    monkeypatch.setattr(schema, "SCHEMA_VERSION", schema.SCHEMA_VERSION + 1)
    upkeep = views.refresh_database_later(record.folder)
    assert upkeep is not None
    upkeep.join()
    assert views.refresh_database_later(record.folder) is None


def test_compaction_changes_no_answer(full: Record) -> None:
    before = {name: frame(folder=full.folder) for name, frame in FRAMES.items()}
    assert compact(full.folder, grace=0) == 1
    kept = {name: frame(folder=full.folder) for name, frame in FRAMES.items()}  # text and Parquet are both there
    assert compact(full.folder, grace=0) == 0
    assert not list((full.folder / "events").glob("0*.jsonl"))
    after = {name: frame(folder=full.folder) for name, frame in FRAMES.items()}
    for name in FRAMES:
        pd.testing.assert_frame_equal(before[name], kept[name])
        pd.testing.assert_frame_equal(before[name], after[name])


def test_a_segment_being_written_is_not_compacted(record: Record) -> None:
    record.turn("r1")
    assert compact(record.folder, grace=0) == 0
    assert verify(record.folder).state.tolist() == ["writing"]


def test_many_segments_are_compacted_by_a_reader(record: Record) -> None:
    for n in range(25):
        record.turn(f"r{n}")
        record.journal.close()
    upkeep = compact_later(record.folder)
    assert upkeep is not None
    upkeep.join()
    assert compact_later(record.folder) is None  # not again within a minute
    assert "compacted" in set(verify(record.folder).state)
    assert len(frames.turns(folder=record.folder)) == 25


def test_verify_finds_holes_and_bad_lines(record: Record) -> None:
    for n in range(5):
        record.turn(f"r{n}")
    record.journal.close()
    (segment,) = (record.folder / "events").glob("0*.jsonl")
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(lines[0] + lines[1] + lines[4] + b'{"id":"01a1fbe9-7f85' + b"\n" + b"\0" * 64)
    found = only(verify(record.folder))
    assert (found.state, found.events, found.missing, found.bad_lines) == ("complete", 3, 2, 2)
    assert len(frames.turns(folder=record.folder)) == 3


def test_a_line_with_unexpected_types_fails_no_query(record: Record) -> None:
    record.turn("r1")
    record.journal.record_audit_event(
        "a", "turn_started", {"run_id": {"x": 1}, "execution_count": "many", "model": [1]}
    )
    record.journal.record_audit_event(
        "a", "model_response_finished", {"usage": "none", "attempt": None, "success": "?"}
    )
    record.journal.close()
    for frame in FRAMES.values():
        frame(folder=record.folder)
    assert compact(record.folder, grace=0) == 1
    assert len(frames.events(folder=record.folder)) == 3


def test_existing_prices_are_not_replaced_by_an_empty_table(tmp_path: Path) -> None:
    file = tmp_path / "prices.parquet"
    with connection() as con:
        for number, overwrite, kept in ((1, False, 1), (2, False, 1), (3, True, 3)):
            write_parquet(con, f"SELECT {number} AS number", file, overwrite=overwrite)
            assert con.execute(f"SELECT number FROM '{file}'").fetchone() == (kept,)
    assert [each.name for each in tmp_path.iterdir()] == [file.name]


def test_rule_changes_say_who_changed_which_rule(record: Record) -> None:
    rule = {"rule_id": "rule-1", "tool_name": "shell", "pattern": "ls *", "allow": True, "rule_scope": "session"}
    record.add(e.RuleChanged, action="made", **rule, scope_key="s1", session_id="s1", request_id="q1")
    record.add(e.RuleChanged, action="revoked", **rule, session_id="s1")
    changes, documented = frames.rule_changes(folder=record.folder), mn.columns("rule_changes")
    assert list(changes.columns) == list(documented.column)
    assert [str(dtype) for dtype in changes.dtypes] == list(documented.dtype)
    assert len(frames.rule_changes(folder=record.folder, session="s1", rule_id="rule-1")) == 2
    assert list(changes.action) == ["made", "revoked"]
    made = changes.iloc[0]
    assert (made.rule_id, made.tool, made.pattern, made.allow) == ("rule-1", "shell", "ls *", True)
    assert (made.scope, made.scope_key, made.request_id, made.decided_by) == ("session", "s1", "q1", "user")
    assert (made.os_user, made.host) == (getpass.getuser(), socket.gethostname())
    assert len(frames.sessions(folder=record.folder)) == 0


def test_a_decision_names_the_person_who_answered_elsewhere_and_what_they_let_run(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    same: dict[str, Any] = {"run_id": "r1", "tool_call_id": "c1", "tool_name": "shell", "request_id": "q1"}
    record.add(e.QuestionAsked, **same, subject="rm *", description="", deadline=1.0)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(journal, "_writer", lambda: '"os_user":"ann","host":"desk"')
        record.add(e.QuestionAnswered, **same, outcome="allowed", decided_by="user", waited_ms=1, input={"a": 1})
    record.add(e.ToolAuthorizationFinished, **same, outcome="allow", decided_by="user", subject="rm x")
    [made] = frames.decisions(folder=record.folder).itertuples()
    assert (made.os_user, made.host, made.subject) == ("ann", "desk", "rm x")


def test_decisions_say_where_they_were_asked_and_what_was_granted(record: Record) -> None:
    turn = {"run_id": "r1", "session_id": "s1", "cell_id": "cell-1", "notebook": "n.ipynb"}
    same: dict[str, Any] = {"run_id": "r1", "tool_call_id": "c1", "tool_name": "shell", "request_id": "q1"}
    record.add(e.TurnStarted, **turn, model="m", prompt="list files")
    granted = {"rule_scope": "session", "rule_id": "rule-1", "pattern": "ls *"}
    record.add(
        e.QuestionAnswered, **same, outcome="allowed", decided_by="user", waited_ms=1, session_id="s1", **granted
    )
    record.add(e.ToolAuthorizationFinished, **same, outcome="allow", decided_by="user", subject="ls a")
    other = same | {"tool_call_id": "c2", "request_id": None}
    record.add(
        e.ToolAuthorizationFinished, **other, outcome="allow", decided_by="rule", rule_id="rule-1", subject="ls b"
    )
    asked, by_rule = (row for _, row in frames.decisions(folder=record.folder).iterrows())
    assert (asked.notebook, asked.cell_id, asked.prompt, asked.pattern) == ("n.ipynb", "cell-1", "list files", "ls *")
    assert (asked.os_user, asked.host) == (getpass.getuser(), socket.gethostname())
    assert asked.rule_id is pd.NA
    assert (by_rule.decided_by, by_rule.rule_id) == ("rule", "rule-1")


def test_a_long_query_prints_no_progress_bar(full: Record) -> None:
    """DuckDB prints one in a notebook, whoever opened the connection; so there is one place that opens it."""
    program = f"""
from pathlib import Path
from mentra_nb.record.parquet import connect, connection
from mentra_nb.record.read import query
import duckdb
asked = "SELECT current_setting('enable_progress_bar')"
print(duckdb.connect().execute(asked).fetchone(), connect().execute(asked).fetchone(), end=" ")
print(connection().execute(asked).fetchone(), end=" ")
with query.connection(folder=Path({str(full.folder)!r})) as con:
    print(con.execute(asked).fetchone())
"""
    shell = "from IPython.terminal.interactiveshell import TerminalInteractiveShell as T; T.instance().run_cell"
    shell = f"{shell}({program!r})"
    done = subprocess.run([sys.executable, "-c", shell], capture_output=True, text=True, timeout=60, check=False)
    assert "(True,) (False,) (False,) (False,)" in done.stdout, done.stderr
    opening = [file for file in Path(mn.__file__).parent.rglob("*.py") if "duckdb.connect(" in file.read_text("utf-8")]
    assert [file.name for file in opening] == ["parquet.py"]


@pytest.mark.parametrize(
    ("read", "why"),
    [
        (lambda folder: mn.prune(keep_days=90, folder=folder), "Nothing in .* is that old"),
        (lambda folder: mn.backtest(["allow shell *"], folder=folder), "No call was recorded"),
        (lambda folder: mn.turns(folder=folder), "No turns"),
    ],
)
def test_a_frame_without_rows_says_why(tmp_path: Path, read: Callable[[Path], Any], why: str) -> None:
    (tmp_path / "events").mkdir()
    found = read(tmp_path)
    assert found.empty
    assert re.match(why, repr(found))
    assert why.split()[0] in found._repr_html_()


def test_effects_say_what_became_of_each_file(record: Record) -> None:
    before, after = FileState("file", 0o644, 3, "a" * 64), FileState("file", 0o600, 5, "b" * 64)
    changes = (
        FileChange("/w/new", None, FileState("folder", 0o755)),
        FileChange("/w/a\udcff.txt", before, after),
        FileChange("/w/gone", FileState("link", 0, 2, "c" * 64), None),
    )
    entry = JournalEntry("effect-1", "r1", "call-1", changes, "files")
    about = {"agent_id": "agent-1", "agent_name": "mentra::task", "run_id": "r1"}
    for event in effects_made(entry, **about, tool_name="files", tool_call_id="call-1"):
        record.add(EffectMade, **event.model_dump(exclude={"kind"}))
    found, documented = frames.effects(folder=record.folder), mn.columns("effects")
    assert list(found.columns) == list(documented.column)
    assert [str(dtype) for dtype in found.dtypes] == list(documented.dtype)
    assert list(found.change) == ["created", "changed", "deleted"]
    assert list(found.type) == ["folder", "file", "link"]
    assert found.path[1] == "/w/a\\xff.txt"
    assert set(found.agent) == {"mentra::task"}
    changed = found.iloc[1]
    assert (changed.bytes_before, changed.bytes, changed.mode_before, changed["mode"]) == (3, 5, "644", "600")
    assert (changed.digest_before, changed.digest) == ("a" * 64, "b" * 64)
    assert (changed.tool, changed.outcome, changed.call_id, changed.effect_id) == (
        "files",
        "made",
        "call-1",
        "effect-1",
    )
    assert found.bytes.isna().tolist() == [True, False, True]
    assert len(frames.effects(folder=record.folder, path="/w/gone", change="deleted", run="r1")) == 1


def test_an_effect_on_many_files_is_several_events() -> None:
    changes = tuple(FileChange(f"/w/{n}", None, FileState("folder", 0o755)) for n in range(2 * MAX_FILES + 1))
    entry = JournalEntry("effect-1", "r1", "call-1", changes, "files", undoes="r0")
    events = list(effects_made(entry, agent_id="a", tool_name="undo", tool_call_id="undo"))
    assert [len(event.files) for event in events] == [MAX_FILES, MAX_FILES, 1]
    assert {(event.outcome, event.undoes) for event in events} == {("undone", "r0")}


@pytest.mark.parametrize("name", ["sessions", "turns", "model_calls", "tool_calls", "decisions", "usage", "events"])
def test_frames_say_who_and_where_and_are_filtered_by_it(full: Record, name: str) -> None:
    of = getattr(frames, name)
    found = of(folder=full.folder)
    me = {"os_user": getpass.getuser(), "host": socket.gethostname()}
    assert len(found)
    for column, value in me.items():
        assert found[column].dtype == "category"
        assert found[column].tolist() == [value] * len(found)
        assert len(of(folder=full.folder, **{column: value})) == len(found)
        assert not len(of(folder=full.folder, **{column: "somebody else"}))


def test_usage_and_time_are_grouped_by_person_and_machine(full: Record) -> None:
    assert frames.usage("os_user", folder=full.folder).os_user.tolist() == [getpass.getuser()]
    assert frames.usage(["host", "model"], folder=full.folder).host.tolist() == [socket.gethostname()]
    assert reports.time_spent(by="os_user", folder=full.folder).turns.tolist() == [1]
