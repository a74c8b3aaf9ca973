"""What a person reads first in each frame: models by name, answers, costs, the rule that decided, and ids last."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from kits.http_server import Reply, Server, sse
from kits.records import SONNET, Record, only

import mentra_nb as mn
import mentra_nb.event.types as e
from mentra_nb import pricing
from mentra_nb.agent.limits import RunOptions
from mentra_nb.chat.chat import chat_on
from mentra_nb.chat.engine import Engine
from mentra_nb.content import TokenUsage
from mentra_nb.errors import ConfigurationError
from mentra_nb.providers.chat_completions import ChatCompletionsProvider
from mentra_nb.providers.demo import DemoProvider
from mentra_nb.providers.replay import replay_provider, taping
from mentra_nb.providers.scripted import ScriptedProvider, text, tool_calls
from mentra_nb.record.read import filters, frames, reports
from mentra_nb.record.write.journal import Journal
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.settings import Settings
from mentra_nb.store.volatile import VolatileStore

pytestmark = pytest.mark.slow

IDS = {"session_id", "run_id", "agent_id", "call_id", "request_id", "rule_id", "entry_id", "cell_id"}
IDS |= {"resumes", "parent_run_id"}
IDS |= {"effect_id", "undoes", "replaces", "notebook", "project", "scope_key"}
FRAMES: dict[str, Callable[..., pd.DataFrame]] = {
    "sessions": frames.sessions,
    "turns": frames.turns,
    "model_calls": frames.model_calls,
    "tool_calls": frames.tool_calls,
    "decisions": frames.decisions,
    "rule_changes": frames.rule_changes,
    "effects": frames.effects,
    "usage": frames.usage,
    "denial_reasons": reports.denial_reasons,
    "backtest": lambda **options: mn.backtest([], **options),
}


@pytest.mark.parametrize("name", FRAMES)
def test_ids_come_last(full: Record, name: str) -> None:
    columns = list(FRAMES[name](folder=full.folder).columns)
    first_id = next(number for number, column in enumerate(columns) if column in IDS)
    assert set(columns[first_id:]) <= IDS
    assert columns[0] in ("ts", "started", "tool")


def test_events_show_the_time_the_kind_and_the_tool_first(full: Record) -> None:
    assert list(frames.events(folder=full.folder).columns)[:4] == ["ts", "kind", "tool", "subject"]


# ---- models ------------------------------------------------------------------------------------------------------


def test_a_model_is_named_with_its_provider_everywhere(full: Record) -> None:
    named = "/".join(SONNET)
    for frame in (frames.sessions, frames.turns, frames.model_calls, frames.usage):
        assert set(frame(folder=full.folder).model) == {named}
    assert list(frames.usage("model", folder=full.folder).model) == [named]
    assert list(reports.time_spent("model", folder=full.folder).model) == [named]


@pytest.mark.parametrize("model", ["anthropic/claude-sonnet-4-5", "claude-sonnet-4-5"])
def test_a_filter_takes_a_model_with_or_without_its_provider(full: Record, model: str) -> None:
    full.response("q9", "r9", TokenUsage(input_tokens=1), of=("openrouter", "/".join(SONNET)))
    assert len(frames.usage(model=model, folder=full.folder)) == 2
    assert len(frames.usage(model=f"openrouter/{'/'.join(SONNET)}", folder=full.folder)) == 1
    assert len(frames.turns(model="openai/claude-sonnet-4-5", folder=full.folder)) == 0


def test_the_model_is_the_one_that_answered(record: Record) -> None:
    record.turn("r1")
    record.response("q1", "r1", TokenUsage(input_tokens=1), of=("openai", "gpt-4o"))
    same: dict[str, Any] = {"run_id": "r1", "request_id": "q2", "provider": "ollama", "model": "qwen3", "attempt": 1}
    record.add(e.ModelRequestStarted, **same)
    record.add(e.ModelRequestFinished, **same, success=False, error="refused")
    record.end("r1")
    record.turn("r2")
    record.add(e.ModelRequestStarted, **same | {"run_id": "r2", "request_id": "q3"})
    assert list(frames.turns(folder=record.folder).model) == ["openai/gpt-4o", "ollama/qwen3"]
    assert only(frames.sessions(folder=record.folder)).model == "openai/gpt-4o"


# ---- questions and answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "prompt", "shown"),
    [
        ("Sales", "what is this?", "Sales"),
        ("s1", "what is\n  this?", "what is this?"),
        ("s1", "", "s1"),
        ("mentra", "what is\n  this?", "what is this?"),
        ("mentra", "word " * 30, "word word word word word word word word word…"),
        ("mentra", "x" * 100, "x" * 47 + "…"),
        ("mentra", "", "mentra"),
    ],
)
def test_an_unnamed_session_has_the_first_words_of_its_question_as_its_title(
    record: Record, title: str, prompt: str, shown: str
) -> None:
    record.add(e.SessionStarted, session_id="s1", title=title, model="m")
    for number, asked in enumerate([prompt, "another"]):
        record.add(e.TurnStarted, run_id=f"r{number}", model="m", prompt=asked, session_id="s1")
    assert only(frames.sessions(folder=record.folder)).title == shown


@pytest.mark.parametrize(("log_text", "answer"), [("preview", "Bearer [redacted] it is."), ("none", "")])
def test_a_turn_has_its_answer_beside_its_question(folder: Path, log_text: Any, answer: str) -> None:
    said = text(f"Bearer {'a1' * 20} it is.")
    journal = Journal(folder, log_text=log_text)
    with Recorded(ScriptedProvider([said]), journal) as chat:
        chat.ask("what is the key?")
    turn = only(frames.turns(folder=folder))
    assert (turn.prompt, turn.answer) == ("what is the key?" if answer else "", answer)


def test_a_long_answer_is_cut(record: Record) -> None:
    record.turn("r1")
    record.end("r1", text="long " * 10_000)
    assert 7_000 < len(only(frames.turns(folder=record.folder)).answer) <= 8 * 1024


# ---- decisions ---------------------------------------------------------------------------------------------------


class Recorded:
    """A conversation with one provider, recorded by `journal`; `act` is offered."""

    def __init__(self, provider: Any, journal: Journal, **settings: Any) -> None:
        self.runtime = Runtime([provider], builtin_tools=False, store=VolatileStore(), audit=journal)
        id = provider.descriptor.id
        self.engine = Engine(Settings(model=settings.pop("model", f"{id}/{id}"), **settings), self.runtime)

    def __enter__(self) -> Any:
        chat = chat_on(self.engine, "talk")
        chat.add_tool(act)
        return chat

    def __exit__(self, *_: object) -> None:
        self.engine.close()
        self.runtime.audit.close()  # type: ignore[attr-defined]


def act(what: str) -> str:
    """Do it."""
    return "done"


def test_arguments_that_do_not_fit_are_no_denial(folder: Path) -> None:
    calls = [("act", {"what": 3}), ("act", "{"), ("nothing", {}), ("act", {"what": "x"})]
    with Recorded(ScriptedProvider([tool_calls(calls), text("done")]), Journal(folder), ask="rules") as chat:
        chat.ask("go")
    found = frames.tool_calls(folder=folder)
    assert list(found.outcome) == ["invalid", "invalid", "denied", "denied"]
    assert list(frames.decisions(folder=folder).outcome) == ["invalid", "invalid", "deny", "deny"]
    assert (only(frames.turns(folder=folder)).denials, only(frames.sessions(folder=folder)).denials) == (2, 2)
    assert frames.usage("tool", folder=folder).set_index("tool").denied.to_dict() == {"act": 1, "nothing": 1}
    assert sum(reports.denial_reasons(folder=folder).calls) == 2
    answers = mn.plot.approvals.frame(folder=folder).set_index(["tool", "answer"]).calls
    assert answers["act", "arguments did not fit"] == 2
    assert list(mn.backtest([], folder=folder).verdict)[:2] == ["invalid", "invalid"]


def test_a_call_that_ran_unasked_says_which_rule_let_it(folder: Path) -> None:
    calls = [tool_calls([("act", {"what": "head x"})]), text("done")]
    provider = ScriptedProvider([*calls, *calls])
    with Recorded(provider, Journal(folder)) as chat:
        rule = chat.allow("act", '*"head *', scope="global")
        chat.ask("go")
        other = chat_on(chat._own_engine, "other")
        other.add_tool(act)
        other.ask("go")  # the rule was made in another session
    for session in (None, "talk", "other"):
        row = frames.tool_calls(session=session, folder=folder).iloc[-1]
        assert (row.decision, row.decided_by, row.rule_id, row.rule) == ("allow", "rule", rule.id, '*"head *')
        assert frames.decisions(session=session, folder=folder).rule.iloc[-1] == '*"head *'
    database = mn.export(folder.parent / "calls.duckdb", folder=folder)
    assert database.exists()


def test_a_denial_names_its_rule(full: Record) -> None:
    full.add(
        e.RuleChanged, action="made", rule_id="1", tool_name="shell", pattern="ls*", allow=False, rule_scope="global"
    )
    full.call("c9", "r9", "deny")
    found = reports.denial_reasons(folder=full.folder)
    assert list(found.rule[found.decided_by == "rule"]) == ["ls*"]


# ---- costs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", ["ollama", "lmstudio", "llamacpp", "vllm", "local", "demo", "scripted"])
def test_models_on_this_machine_cost_nothing(record: Record, provider: str) -> None:
    tokens = TokenUsage(input_tokens=1_000_000, output_tokens=1)
    record.response("q1", "r1", tokens, of=(provider, "m"))
    assert only(frames.usage(folder=record.folder)).cost_usd == 0
    assert pricing.cost_usd(provider, "m", tokens, folder=record.folder) == 0
    prices = f"provider,model,{','.join(pricing._RATES)}\n{provider},*,2,2,,\n"
    (record.folder / "prices.csv").write_text(prices, encoding="utf-8")
    assert only(frames.usage(folder=record.folder)).cost_usd == pytest.approx(2.000002)


def test_a_sum_says_of_how_many_responses_the_cost_is_not_known(full: Record) -> None:
    full.turn("r2")
    full.response("q8", "r2", TokenUsage(input_tokens=1), of=("lab", "m"))
    full.response("q9", "r2", TokenUsage(input_tokens=1), of=("lab", "m"))
    known = frames.usage("day", folder=full.folder).iloc[0]
    assert (known.responses, known.unpriced, known.priced) == (4, 2, 0.5)
    assert list(frames.turns(folder=full.folder).unpriced) == [0, 2]
    assert list(frames.turns(folder=full.folder).cost_usd.isna()) == [False, True]
    assert only(frames.sessions(folder=full.folder)).unpriced == 2


def test_a_cost_that_came_with_the_response_is_the_one_in_the_record(record: Record) -> None:
    record.response("q1", "r1", TokenUsage(input_tokens=1_000_000, cost_usd=0.25))
    assert only(frames.usage(folder=record.folder)).cost_usd == 0.25
    assert only(frames.model_calls(folder=record.folder)).cost_usd == 0.25


@pytest.mark.anyio
async def test_a_replayed_answer_costs_nothing(server: Server, tmp_path: Path, folder: Path) -> None:
    """Whatever the model on the tape costs, and whatever its server said."""
    usage = {"prompt_tokens": 1_000_000, "completion_tokens": 10, "cost": 3.5}
    choices = [{"delta": {"content": "Hello."}, "finish_reason": "stop"}]
    server.reply(Reply([sse({"choices": choices, "usage": usage}, done=True)]))
    path, model = tmp_path / "t.jsonl", "openrouter/openai/gpt-4o"
    live = taping(ChatCompletionsProvider("openrouter", server.url, api_key="sk-secret"), path)
    costs = []
    for make in (lambda: live, lambda: replay_provider(path)):
        with Recorded(make(), Journal(folder), model=model) as chat:
            costs.append((await chat.aask("hello")).cost)
    assert costs == [3.5, 0]
    assert list(frames.usage(folder=folder).cost_usd) == costs
    assert list(frames.usage(folder=folder).input_tokens) == [1_000_000] * 2


@pytest.mark.parametrize("provider", [DemoProvider(pace=0), ScriptedProvider([text("hi")])])
def test_an_answer_of_the_demo_or_of_a_script_costs_nothing(folder: Path, provider: Any) -> None:
    with Recorded(provider, Journal(folder)) as chat:
        assert chat.ask("hello", limits=RunOptions(cost_budget=1.0)).cost == 0


# ---- this notebook's conversation --------------------------------------------------------------------------------


def test_this_is_the_notebooks_conversation(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    record.two_sessions()
    monkeypatch.setattr(filters, "_this", [lambda: "s2"])
    for frame in (frames.sessions, frames.turns, frames.tool_calls, frames.decisions, frames.usage, frames.events):
        assert set(frame(session="this", folder=record.folder).session_id.dropna()) == {"s2"}
    assert set(mn.plot.timeline.frame("this", folder=record.folder).run_id) == {"s2-r1", "s2-r2"}
    both = frames.turns(session=["this", "s1"], folder=record.folder)
    assert set(both.session_id) == {"s1", "s2"}
    monkeypatch.setattr(filters, "_this", [])
    with pytest.raises(ConfigurationError, match="this notebook's conversation, and it has none yet"):
        frames.turns(session="this", folder=record.folder)


@pytest.mark.parametrize("name", FRAMES)
def test_an_empty_frame_says_what_to_do(tmp_path: Path, name: str) -> None:
    nothing = repr(FRAMES[name](folder=tmp_path / "nothing"))
    assert "%mentra" in nothing or "mn." in nothing or name == "backtest"


def test_values_that_nobody_filled_in_do_not_change_who_let_the_call(full: Record) -> None:
    full.call("c9", "r9", tool="mcp__shop__order")
    asked: dict[str, Any] = {"run_id": "r9", "tool_call_id": "c9", "tool_name": "mcp__shop__order", "request_id": "q9"}
    full.add(e.QuestionAsked, **asked, description="asks", subject="Where to?", session_id="s1", deadline=2e9)
    full.add(e.QuestionAnswered, **asked, outcome="denied", decided_by="headless", waited_ms=0)
    row = frames.tool_calls(tool="mcp__shop__order", folder=full.folder).iloc[-1]
    assert (row.decision, row.decided_by, row.rule_id, row.outcome) == ("allow", "rule", "1", "ok")
