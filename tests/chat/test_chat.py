"""Conversations without `await`: replies, stops, errors, rules, and the engine behind them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

import mentra_nb as mn
from mentra_nb.agent.limits import CancellationToken, RunOptions
from mentra_nb.authorization import PermissionDecision
from mentra_nb.chat.chat import SYSTEM, Chat, RunningTurn, chat_on
from mentra_nb.chat.engine import Engine
from mentra_nb.chat.models import DEMO_NOTICE
from mentra_nb.content import TokenUsage
from mentra_nb.errors import (
    Cancelled,
    ConfigurationError,
    FailedToStreamResponse,
    InvalidRequest,
    InvalidTool,
    LeaseUnavailable,
    MaxRoundsExceeded,
    NoResumableTurn,
    OperationDenied,
)
from mentra_nb.event import screen as shown
from mentra_nb.event.bus import NullAudit
from mentra_nb.providers.base import ModelInfo, ProviderEvent, Request
from mentra_nb.providers.registry import KEYS
from mentra_nb.providers.scripted import (
    ControlledStream,
    ScriptedAnswer,
    ScriptedProvider,
    failure,
    stream_text,
    text,
    tool_calls,
)
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.settings import Settings
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.store.volatile import VolatileStore
from mentra_nb.tools.builtin.shell import ShellTool
from mentra_nb.tools.function import tool
from mentra_nb.tools.schema import ToolError


@contextmanager
def engine_of(
    *turns: ScriptedAnswer | ControlledStream, store: SqliteStore | None = None, **settings: Any
) -> Iterator[Engine]:
    runtime = Runtime([ScriptedProvider(turns)], builtin_tools=False, store=store or VolatileStore(), audit=NullAudit())
    engine = Engine(Settings(model="scripted/scripted", **settings), runtime)
    try:
        yield engine
    finally:
        engine.close()


def script(engine: Engine) -> ScriptedProvider:
    provider = engine.runtime.provider("scripted")
    assert isinstance(provider, ScriptedProvider)
    return provider


def until(turn: RunningTurn, kind: type[shown.SessionEvent]) -> Any:
    """The next event of that kind."""
    deadline = time.monotonic() + 10
    while True:
        event = turn.events.get(timeout=deadline - time.monotonic())
        if isinstance(event, kind):
            return event


@tool
def act(what: str = "x") -> str:
    """Do it."""
    return "done"


# ---- replies --------------------------------------------------------------------------------------------------


def test_a_reply_has_text_usage_and_cost() -> None:
    usage = TokenUsage(input_tokens=3, output_tokens=2)
    with engine_of(stream_text(["Hel", "lo"], usage=usage)) as engine:
        chat = chat_on(engine, "talk")
        reply = chat.ask("hi")
    assert (str(reply), reply.text, reply.model, reply.stop_reason) == ("Hello", "Hello", "scripted/scripted", "end")
    assert reply.usage == usage
    assert reply.session.startswith("session-")
    assert reply.turn_id.startswith("run-")
    assert 0 <= reply.seconds < 10
    assert (reply.cost, reply.tools, chat.last, chat.turn_count) == (0, [], reply, 1)
    assert repr(reply) == "<Reply 'Hello' from scripted/scripted, 0 tool calls>"


def test_a_reply_lists_its_tool_calls() -> None:
    quick = tool(asks=False, reads_only=True, name="quick")(lambda: "q")

    def fail() -> None:
        raise ToolError("no")

    with engine_of(tool_calls([("quick", {}), ("fail", {}), ("nope", {})]), text("ok")) as engine:
        reply = chat_on(engine, tools=[quick, tool(asks=False)(fail)]).ask("go")
    assert [(t.name, t.summary, t.is_error) for t in reply.tools] == [
        ("quick", "{}", False),
        ("fail", "{}", True),
        ("nope", "", True),
    ]
    assert reply.tools[0].duration_ms is not None
    assert reply.tools[2].duration_ms is None


def test_a_conversation_goes_on() -> None:
    with engine_of(text("one"), text("two")) as engine:
        chat = chat_on(engine)
        chat.ask("first")
        chat.ask("second")
        assert [m.text() for m in script(engine).recorded_requests[1].messages] == ["first", "one", "second"]


def test_the_same_name_continues_in_another_process(tmp_path: Path) -> None:
    with engine_of(text("one"), store=SqliteStore(tmp_path / "s")) as engine:
        first = chat_on(engine, "talk").ask("first")
    with engine_of(text("two"), text("else"), store=SqliteStore(tmp_path / "s")) as engine:
        second = chat_on(engine, "talk").ask("second")
        assert second.session == first.session
        assert len(script(engine).recorded_requests[0].messages) == 3
        assert chat_on(engine).ask("third").session != first.session


@pytest.mark.parametrize("name", ["work", None])
def test_a_failed_turn_is_resumed_after_a_restart(tmp_path: Path, name: str | None) -> None:
    harmless = tool(name="act", reads_only=True)(lambda: "done")
    store = SqliteStore(tmp_path / "s.sqlite")
    script_one = tool_calls([("act", {})]), failure(InvalidRequest("no"))
    with engine_of(*script_one, store=store) as engine, pytest.raises(FailedToStreamResponse):
        chat_on(engine, name, tools=[harmless], notebook="nb.ipynb").ask("go")
    with engine_of(text("there"), store=SqliteStore(tmp_path / "s.sqlite")) as engine:
        chat = chat_on(engine, name, tools=[harmless], notebook="nb.ipynb")
        assert chat.resume().result().text == "there"
        [request] = script(engine).recorded_requests
        assert [message.text() for message in request.messages][:1] == ["go"]
        assert request.messages[2].tool_results()[0].content == "done"
        with pytest.raises(NoResumableTurn):
            chat.resume().result()


def test_a_notebook_without_an_earlier_conversation_has_nothing_to_resume(tmp_path: Path) -> None:
    with engine_of(text("hi")) as engine:
        chat_on(engine, notebook="other.ipynb").ask("go")
        with pytest.raises(OperationDenied, match="no earlier conversation"):
            chat_on(engine, notebook="nb.ipynb").resume().result()


def test_a_conversation_that_is_open_elsewhere_is_refused_by_its_name(tmp_path: Path) -> None:
    with engine_of(text("hi"), store=SqliteStore(tmp_path / "s.sqlite")) as one:
        chat_on(one, "work").ask("go")
        with engine_of(text("never"), store=SqliteStore(tmp_path / "s.sqlite")) as other:
            with pytest.raises(LeaseUnavailable, match="conversation 'work' is in use by this process"):
                chat_on(other, "work").ask("go")
            assert script(other).recorded_requests == []


def test_a_model_may_be_named_for_one_turn() -> None:
    with engine_of(text("one"), text("two")) as engine:
        chat = chat_on(engine)
        assert chat.ask("hi", model="scripted/other").model == "scripted/other"
        assert chat.ask("hi").model == "scripted/scripted"
        assert [r.model for r in script(engine).recorded_requests] == ["other", "scripted"]


def test_an_unknown_model_is_an_error_before_anything_is_stored() -> None:
    with engine_of() as engine:
        with pytest.raises(ConfigurationError, match="is not a model name"):
            chat_on(engine).ask("hi", model="nothing")
        assert engine.call(engine.runtime.store.list_sessions) == []


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_an_empty_prompt_is_refused(prompt: str) -> None:
    with engine_of() as engine, pytest.raises(ConfigurationError, match="nothing to ask"):
        chat_on(engine).ask(prompt)


@pytest.mark.parametrize(
    ("given", "what"),
    [({"prompt": 5}, "prompt"), ({"prompt": None}, "prompt"), ({"prompt": "hi", "model": 5}, "model")],
)
def test_what_is_not_text_is_refused_in_one_sentence(given: dict[str, Any], what: str) -> None:
    with engine_of() as engine:
        for ask in (chat_on(engine).ask, chat_on(engine).start):
            with pytest.raises(ConfigurationError, match=f"^the {what} must be text, not (int|NoneType): mn.ask"):
                ask(**given)
        with pytest.raises(ConfigurationError, match=r"^the name of a conversation must be text"):
            chat_on(engine, 5).ask("hi")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: mn.allow(5), "tool"),  # type: ignore[arg-type]
        (lambda: mn.deny(None), "tool"),  # type: ignore[arg-type]
        (lambda: mn.allow("shell", 5), "pattern"),  # type: ignore[arg-type]
        (lambda: mn.deny("shell", reason=5), "reason"),  # type: ignore[arg-type]
        (lambda: mn.connect(5, "http://127.0.0.1:1/v1"), "name"),  # type: ignore[arg-type]
        (lambda: mn.connect("lab", 5), "address"),  # type: ignore[arg-type]
        (lambda: mn.connect("lab", "http://127.0.0.1:1/v1", model=5), "model"),  # type: ignore[arg-type]
        (lambda: mn.models(5), "part of a name"),  # type: ignore[arg-type]
        (lambda: mn.tape("t.jsonl", 5), "model"),  # type: ignore[arg-type]
        (lambda: mn.tape(5, "m"), "path"),  # type: ignore[arg-type]
        (lambda: mn.replay(None), "path"),  # type: ignore[arg-type]
        (lambda: mn.export(5), "path"),  # type: ignore[arg-type]
        (lambda: mn.sql(5), "query"),  # type: ignore[arg-type]
        (lambda: mn.messages(5), "session"),  # type: ignore[arg-type]
        (lambda: mn.plot.timeline(5), "session"),  # type: ignore[arg-type]
    ],
)
def test_the_other_calls_refuse_in_one_sentence_as_well(
    call: Callable[[], object], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine_of() as engine:
        monkeypatch.setattr("mentra_nb.chat.engine._engine", engine)
        with pytest.raises(
            ConfigurationError, match=rf"^the {what} must be text( or a Path)?, not (int|NoneType): mn\."
        ):
            call()


def test_a_provider_object_is_asked_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with engine_of(text("before")) as engine:
        monkeypatch.setattr("mentra_nb.chat.engine._engine", engine)
        with pytest.raises(ConfigurationError, match=r"^a provider is asked for, not str: mn\.use\("):
            mn.use("demo")  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match=r"^the model must be text, not int: mn\.use\("):
            mn.use(ScriptedProvider(), 5)  # type: ignore[arg-type]
        assert mn.ask("hi").text == "before"
        mn.use(ScriptedProvider([text("mine")], id="mine", models=["a", "b"]), "b")
        reply = mn.ask("hi")
        assert (reply.text, reply.model) == ("mine", "mine/b")
        assert engine.settings.source("model") == "mn.connect, mn.replay, mn.tape or mn.use"


def test_a_failure_is_raised_and_the_next_turn_works() -> None:
    with engine_of(failure(InvalidRequest("no")), text("fine")) as engine:
        chat = chat_on(engine)
        with pytest.raises(FailedToStreamResponse, match="no"):
            chat.ask("hi")
        assert chat.ask("hi").text == "fine"


def test_an_invalid_tool_is_refused_before_the_turn() -> None:
    with engine_of() as engine, pytest.raises(InvalidTool):
        chat_on(engine).ask("hi", tools=[lambda: 1])


def test_tools_given_with_a_question_are_offered_in_that_turn_only() -> None:
    with engine_of(text("one"), text("two")) as engine:
        chat = chat_on(engine)
        chat.ask("hi", tools=[act])
        chat.ask("again")
        assert [[t.name for t in r.tools] for r in script(engine).recorded_requests] == [["act"], []]
        assert chat.tools() == []


def test_the_demo_is_used_without_a_model_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    with engine_of() as engine:
        engine.settings.model = None
        turn = chat_on(engine).start("hi")
        assert until(turn, shown.Notice).message == DEMO_NOTICE
        assert turn.result().model == "demo/demo"


def test_a_model_that_was_named_needs_no_notice() -> None:
    with engine_of(text("hi")) as engine:
        turn = chat_on(engine).start("hi")
        turn.wait()
        events = [turn.events.get() for _ in range(turn.events.qsize())]
        assert events
        assert not [event for event in events if isinstance(event, shown.Notice)]


# ---- system prompt, limits, typed output, streams ---------------------------------------------------------------


class City(BaseModel):
    name: str


def test_a_system_prompt_is_the_conversations_or_of_one_turn() -> None:
    with engine_of(*[text("ok")] * 4) as engine:
        chat_on(engine).ask("hi")
        chat = chat_on(engine, system="Be terse.")
        chat.ask("hi")
        chat.ask("hi", system="Be kind.")
        chat.ask("hi")
        asked = [request.system for request in script(engine).recorded_requests]
    assert asked == [SYSTEM, "Be terse.", "Be kind.", "Be terse."]


def test_a_system_prompt_holds_for_a_conversation_that_was_stored_with_another(tmp_path: Path) -> None:
    with engine_of(text("ok"), store=SqliteStore(tmp_path / "s")) as engine:
        chat_on(engine, "talk", system="One.").ask("hi")
    with engine_of(text("ok"), text("ok"), store=SqliteStore(tmp_path / "s")) as engine:
        with chat_on(engine, "talk", system="Two.") as chat:
            chat.ask("hi")
        chat_on(engine, "talk").ask("hi")
        assert [request.system for request in script(engine).recorded_requests] == ["Two.", "One."]


class Shaping(ScriptedProvider):
    """Gives a city where one is asked for, else text."""

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[ProviderEvent]]:
        wanted = [tool.name for tool in request.tools if tool.name.startswith("mentra_terminal_City")]
        answer = tool_calls([(wanted[0], {"name": "Oslo"})]) if wanted else text("plain")
        async with ScriptedProvider([answer]).stream(request) as events:
            yield events


def test_a_typed_output_is_the_value_of_the_reply() -> None:
    with engine_of() as engine:
        engine.use(Shaping(), "m")
        chat = chat_on(engine, tools=[act])
        reply = chat.ask("Where?", as_=City)
        assert reply.value == City(name="Oslo")
        assert repr(reply).startswith("<Reply City(name='Oslo') from scripted/m")
        assert chat.ask("hi").value is None
        assert chat_on(engine, as_=City).ask("Where?").value == City(name="Oslo")


def test_limits_are_of_every_turn_or_of_one() -> None:
    @tool(asks=False, name="act")
    def loop() -> str:
        return "more"

    again = tool_calls([("act", {})])
    with engine_of(again, again, text("one"), again, text("two")) as engine:
        chat = chat_on(engine, tools=[loop], limits=RunOptions(max_rounds=1))
        with pytest.raises(MaxRoundsExceeded):
            chat.ask("go")
        assert chat.ask("go", limits=RunOptions(max_rounds=2)).text == "one"
        with pytest.raises(MaxRoundsExceeded):
            chat.ask("go")


def test_the_token_of_the_limits_stops_the_turn() -> None:
    stream, token = ControlledStream(), CancellationToken()
    with engine_of(stream) as engine:
        turn = chat_on(engine).start("go", limits=RunOptions(cancellation=token))
        engine.call(stream.wait_opened)
        token.cancel("enough")
        with pytest.raises(Cancelled, match="enough"):
            turn.result()


def test_stopping_a_turn_leaves_the_token_of_its_limits_alone() -> None:
    stream, token = ControlledStream(), CancellationToken()
    with engine_of(stream, text("later")) as engine:
        chat = chat_on(engine, limits=RunOptions(cancellation=token))
        turn = chat.start("go")
        engine.call(stream.wait_opened)
        turn.stop()
        with pytest.raises(Cancelled):
            turn.result()
        assert chat.ask("and?").text == "later"
        assert not token.is_cancelled


def test_a_stream_yields_the_text_in_pieces_and_then_the_reply_is_there() -> None:
    with engine_of(stream_text(["Hel", "lo"])) as engine:
        chat = chat_on(engine)
        assert list(chat.stream("hi")) == ["Hel", "lo"]
        assert chat.last is not None
        assert chat.last.text == "Hello"


def test_a_blank_line_parts_what_a_stream_says_before_and_after_a_tool() -> None:
    def look() -> str:
        return "seen"

    with engine_of(tool_calls([("look", {})], text="I look."), tool_calls([("look", {})]), text("I saw.")) as engine:
        chat = chat_on(engine)
        chat.allow("look")
        assert "".join(chat.stream("go", tools=[look])) == "I look.\n\nI saw."


def test_a_stream_that_is_left_stops_its_turn_and_one_that_fails_raises() -> None:
    stream = ControlledStream()
    with engine_of(stream, failure(InvalidRequest("no")), text("fine")) as engine:
        chat = chat_on(engine)
        pieces = chat.stream("go")
        engine.call(stream.wait_opened)
        stream.send(*stream_text(["Well"]).events[:3])
        assert next(pieces) == "Well"
        pieces.close()
        with pytest.raises(FailedToStreamResponse):
            list(chat.stream("again"))
        assert chat.ask("and?").text == "fine"


# ---- awaiting a turn ----------------------------------------------------------------------------------------------


def test_turns_are_awaited_at_once_on_any_loop() -> None:
    async def both(engine: Engine) -> list[str]:
        one, two = ControlledStream(), ControlledStream()
        engine.runtime.register_provider_instance(ScriptedProvider([one, two]))
        first = asyncio.create_task(chat_on(engine).aask("1"))
        await asyncio.to_thread(engine.call, one.wait_opened)
        second = asyncio.create_task(chat_on(engine).aask("2"))
        await asyncio.to_thread(engine.call, two.wait_opened)
        two.send_answer(text("second"))
        answers = [(await second).text]
        one.send_answer(text("first"))
        return [*answers, (await first).text]

    with engine_of() as engine:
        assert asyncio.run(both(engine)) == ["second", "first"]
        assert asyncio.run(both(engine)) == ["second", "first"]


def test_cancelling_the_await_stops_the_turn() -> None:
    stream = ControlledStream()

    async def cancelled(chat: Chat) -> None:
        task = asyncio.create_task(chat.aask("go"))
        await asyncio.to_thread(engine.call, stream.wait_opened)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await chat.aask("and?")).text == "later"

    with engine_of(stream, text("later")) as engine:
        asyncio.run(cancelled(chat_on(engine)))


def test_an_awaited_turn_raises_what_went_wrong() -> None:
    with engine_of(failure(InvalidRequest("no"))) as engine, pytest.raises(FailedToStreamResponse):
        asyncio.run(chat_on(engine).aask("hi"))


def test_an_asynchronous_tool_awaits_another_conversation_but_may_not_wait_for_it() -> None:
    turns = [tool_calls([("wait", {}), ("consult", {})]), text("inner"), text("outer")]
    with engine_of(*turns) as engine:
        other = chat_on(engine, "other")

        @tool(asks=False, name="consult")
        async def consult() -> str:
            return (await other.aask("what?")).text

        @tool(asks=False, name="wait")
        async def wait() -> str:
            return other.ask("what?").text

        assert chat_on(engine, "main", tools=[consult, wait]).ask("go").text == "outer"
        waited, consulted = script(engine).recorded_requests[2].messages[-1].tool_results()
    assert waited.is_error
    assert "await Chat.aask" in waited.display()
    assert consulted.content == "inner"


# ---- letting go, and what was said -------------------------------------------------------------------------------


def test_leaving_a_conversation_releases_it_and_the_next_turn_opens_it_again(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with (
        engine_of(text("one"), text("three"), store=SqliteStore(path)) as one,
        engine_of(text("two"), store=SqliteStore(path)) as other,
    ):
        with chat_on(one, "work") as chat:
            chat.ask("1")
            assert len(one.call(one.runtime.store.list_leases)) == 1
        assert one.call(one.runtime.store.list_leases) == []
        with chat_on(other, "work") as elsewhere:
            assert elsewhere.ask("2").text == "two"
        assert chat.ask("3").text == "three"
        assert [m.text() for m in script(one).recorded_requests[1].messages] == ["1", "one", "2", "two", "3"]
        assert chat.turn_count == 2


def test_leaving_a_conversation_stops_the_turn_that_is_running() -> None:
    stream = ControlledStream()
    with engine_of(stream, text("later")) as engine:
        with chat_on(engine) as chat:
            turn = chat.start("go")
            engine.call(stream.wait_opened)
        with pytest.raises(Cancelled):
            turn.result()
        assert engine.call(engine.runtime.store.list_leases) == []
        assert chat.ask("and?").session == chat.last.session  # type: ignore[union-attr]  # it was set by this turn
        chat.close()
        chat.close()


def test_closing_stops_a_turn_that_has_only_just_begun() -> None:
    with engine_of(ControlledStream()) as engine:
        with chat_on(engine) as chat:
            turn = chat.start("go")
        with pytest.raises(Cancelled):
            turn.result()
        assert engine.call(engine.runtime.store.list_leases) == []


def test_the_history_is_read_before_and_after_a_turn(tmp_path: Path) -> None:
    with engine_of(text("one"), store=SqliteStore(tmp_path / "s")) as engine:
        chat = chat_on(engine, "talk")
        assert chat.history == []
        chat.ask("hi")
        assert [message.text() for message in chat.history] == ["hi", "one"]
    with engine_of(store=SqliteStore(tmp_path / "s")) as engine:
        assert [message.text() for message in chat_on(engine, "talk").history] == ["hi", "one"]


def test_a_usage_shows_only_what_was_counted() -> None:
    assert repr(TokenUsage(input_tokens=3)) == "TokenUsage(input_tokens=3)"
    assert repr(TokenUsage()) == "TokenUsage()"


# ---- asking and stopping --------------------------------------------------------------------------------------


def test_a_question_of_a_turn_is_answered_from_this_thread() -> None:
    with engine_of(tool_calls([("act", {})]), text("ok")) as engine:
        turn = chat_on(engine, tools=[act]).start("go")
        asked = until(turn, shown.QuestionAsked)
        assert [q.request_id for q in turn.open_questions()] == [asked.request_id]
        turn.answer(asked.request_id, PermissionDecision(allow=True))
        assert [t.is_error for t in turn.result().tools] == [False]
        with pytest.raises(OperationDenied):
            turn.answer(asked.request_id, PermissionDecision(allow=True))


def test_a_conversation_and_a_reply_count_in_words() -> None:
    with engine_of(tool_calls([("act", {})]), text("ok")) as engine:
        chat = chat_on(engine, "words", tools=[act])
        reply = chat.ask("go")
        assert repr(chat) == "<Chat 'words': 1 turn>"
        assert repr(reply).endswith(", 1 tool call>")


def test_without_a_screen_a_call_is_refused_and_its_result_says_how_to_allow_it() -> None:
    with engine_of(tool_calls([("act", {})]), text("ok")) as engine:
        reply = chat_on(engine, tools=[act]).ask("go")
        told = script(engine).recorded_requests[1].messages[-1].tool_results()[0]
    assert reply.tools[0].is_error
    assert "mn.allow('act'" in str(told.content)


def test_a_call_denied_in_a_stream_names_what_asks_a_person() -> None:
    with engine_of(tool_calls([("act", {})]), text("ok")) as engine:
        list(chat_on(engine, tools=[act]).stream("go"))
        told = script(engine).recorded_requests[1].messages[-1].tool_results()[0]
    assert "ask with %mentra, mn.ask or Chat.ask in a cell" in str(told.content)


def test_allowing_beforehand_lets_it_run_and_denying_wins() -> None:
    turns = [tool_calls([("act", {})]), text("ok"), tool_calls([("act", {})]), text("ok")]
    with engine_of(*turns) as engine:
        chat = chat_on(engine, tools=[act])
        allowed = chat.allow("act")
        assert not chat.ask("go").tools[0].is_error
        assert [(r.pattern, r.times_used) for r in chat.rules()] == [("*", 1)]
        chat.deny("act", "{*", reason="enough")
        assert chat.ask("go").tools[0].is_error
        chat.revoke(allowed.id)
        assert [r.allow for r in chat.rules()] == [False]
        with pytest.raises(OperationDenied, match="there is no rule"):
            chat.revoke(allowed.id)


def test_a_project_rule_is_for_the_project_of_the_conversation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the working folder has changed meanwhile."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path / "here")
    with engine_of(text("hello"), tool_calls([("act", {})]), text("ok")) as engine:
        chat = chat_on(engine, tools=[act])
        chat.ask("hello")
        monkeypatch.chdir(tmp_path / "there")
        rule = chat.allow("act", scope="project")
        assert rule.scope_key == str(tmp_path / "here")
        assert [r.id for r in chat.rules()] == [rule.id]
        assert not chat.ask("go").tools[0].is_error


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (("shel", "ls *"), "there is no tool 'shel': did you mean 'shell'?"),
        (("Shell", "ls *"), "there is no tool 'Shell': did you mean 'shell'?"),
        (("*", "*"), "'*' is not the name of a tool: a rule is for one tool, with a pattern"),
        (("shell", ""), "the pattern is empty: write * for every call"),
        (("read", "data/"), "'data/' is a folder and matches no file: write 'data/*'"),
    ],
)
def test_a_rule_that_can_never_match_is_an_error(rule: tuple[str, str], sentence: str) -> None:
    with engine_of() as engine:
        engine.runtime.register_tool(ShellTool())
        chat = chat_on(engine, tools=[act])
        with pytest.raises(OperationDenied) as failure:
            chat.allow(*rule)
        assert str(failure.value) == sentence
        assert chat.rules() == []
        assert chat.allow("a_tool_of_tomorrow").tool == "a_tool_of_tomorrow"


def test_the_settings_in_force_hold_for_the_next_turn() -> None:
    with engine_of(tool_calls([("act", {})]), text("ok"), ask_timeout=0.05) as engine:
        turn = chat_on(engine, tools=[act]).start("go")
        assert turn.result().tools[0].is_error
        answered = until(turn, shown.QuestionAnswered)
    assert answered.decided_by == "timeout"


def test_stopping_a_silent_turn_ends_it() -> None:
    stream = ControlledStream()
    with engine_of(stream, text("later")) as engine:
        chat = chat_on(engine)
        turn = chat.start("go")
        engine.call(stream.wait_opened)
        turn.stop()
        with pytest.raises(Cancelled, match="stopped by the user"):
            turn.future.result(20)
        assert chat.ask("and?").text == "later"


def test_a_turn_can_be_stopped_while_its_model_is_resolved() -> None:
    class Unreachable(ScriptedProvider):
        asked = anyio.Event()

        async def list_models(self) -> list[ModelInfo]:
            self.asked.set()
            await anyio.sleep_forever()
            raise AssertionError

    with engine_of() as engine:
        provider = Unreachable(id="far")
        engine.use(provider, None)
        turn = chat_on(engine).start("go")
        engine.call(provider.asked.wait)
        turn.stop()
        with pytest.raises(Cancelled, match="stopped by the user"):
            turn.future.result(20)
        assert provider.recorded_requests == []


def test_a_second_turn_while_one_is_running_is_refused_and_leaves_the_first_alone() -> None:
    stream = ControlledStream()
    with engine_of(stream, text("fine")) as engine:
        chat = chat_on(engine, tools=[act])
        first = chat.start("one")
        engine.call(stream.wait_opened)
        second = chat.start("two", model="scripted/other", can_ask=False)
        with pytest.raises(OperationDenied, match="already taking a turn"):
            second.result()
        assert second.events.empty()
        stream.send_answer(tool_calls([("act", {})]))
        first.answer(until(first, shown.QuestionAsked).request_id, PermissionDecision(allow=True))
        assert [t.is_error for t in first.result().tools] == [False]


def test_two_conversations_run_at_once() -> None:
    one, two = ControlledStream(), ControlledStream()
    with engine_of(one, two) as engine:
        first = chat_on(engine).start("1")
        engine.call(one.wait_opened)
        second = chat_on(engine).start("2")
        engine.call(two.wait_opened)
        two.send_answer(text("second"))
        assert second.result().text == "second"
        one.send_answer(text("first"))
        assert first.result().text == "first"


# ---- the engine -----------------------------------------------------------------------------------------------


def test_closing_stops_what_runs_and_the_stored_turn_is_settled(tmp_path: Path) -> None:
    stream, store = ControlledStream(), SqliteStore(tmp_path / "s")
    with engine_of(stream, store=store) as engine:
        turn = chat_on(engine, "talk").start("go")
        engine.call(stream.wait_opened)
        engine.close()
        with pytest.raises(Cancelled):
            turn.result()
    with engine_of(text("again"), store=SqliteStore(tmp_path / "s")) as engine:
        [agent] = engine.call(engine.runtime.store.list_agents)
        [run] = engine.call(engine.runtime.store.list_runs, agent.id)
        assert (run.state, agent.status) == ("interrupted", "Interrupted")
        assert chat_on(engine, "talk").ask("go on").text == "again"


def test_an_engine_that_was_closed_starts_again() -> None:
    with engine_of(text("one"), text("two")) as engine:
        assert chat_on(engine).ask("hi").text == "one"
        engine.close()
        assert chat_on(engine).ask("hi").text == "two"


def test_the_engine_runs_on_a_thread_that_never_keeps_the_interpreter_alive() -> None:
    with engine_of() as engine:

        async def here() -> tuple[int, bool]:
            return threading.get_ident(), threading.current_thread().daemon

        ident, daemon = engine.call(here)
    assert ident != threading.get_ident()
    assert daemon


def test_a_provider_put_to_use_is_the_default_from_then_on() -> None:
    with engine_of() as engine:
        engine.use(ScriptedProvider([text("mine")], id="mine"), "m")
        assert chat_on(engine).ask("hi").model == "mine/m"


def test_a_function_offered_as_a_tool_may_itself_ask_another_conversation() -> None:
    turns = [tool_calls([("consult", {})]), text("inner"), text("outer")]
    with engine_of(*turns) as engine:
        other = chat_on(engine, "other")
        consult: Callable[[], str] = lambda: other.ask("what?").text  # noqa: E731
        reply = chat_on(engine, "main", tools=[tool(asks=False, name="consult")(consult)]).ask("go")
        assert reply.text == "outer"
        assert script(engine).recorded_requests[2].messages[-1].tool_results()[0].content == "inner"


PROGRAM = """
import mentra_nb as mn
from mentra_nb import errors
from mentra_nb.chat import engine

first = mn.ask("hi", model="demo")
assert first.model == "demo/demo" and str(first)
assert mn.ask("and?", model="demo").session == first.session, "the conversation goes on"
rule = mn.allow("shell", "echo *")
frame = mn.rules()
assert list(frame["pattern"]) == ["echo *"] and str(frame["created_at"].dtype) == "datetime64[us, UTC]"
assert set(mn.turns(session="this").session_id) == {first.session} and len(mn.turns(session="this")) == 2
assert set(mn.turns(session="this").answer) == {first.text, mn.turns().answer.iloc[-1]}
assert first.cost == 0
mn.deny("shell", "rm *", reason="never")
before = engine.engine()
engine.reset()
assert engine.engine() is not before
assert mn.rules().empty, "rules of a conversation of this process end with it"
assert "mn.allow(" in repr(mn.rules()) and str(mn.rules()["created_at"].dtype) == "datetime64[us, UTC]"
assert mn.turns(session="this").empty
import asyncio
assert asyncio.run(mn.aask("hi", model="demo", session="other")).text
mn.connect("lab", "http://127.0.0.1:9/v1", model="m")
assert engine.engine().settings.model == "lab/m"
for call in (lambda: mn.ask(""), lambda: mn.ask("x", model="nope"), lambda: mn.replay("none.jsonl")):
    try:
        call()
    except errors.ConfigurationError as error:
        assert "\\n" not in str(error)
    else:
        raise AssertionError("not refused")
"""


@pytest.mark.slow
def test_the_functions_of_the_package_share_one_engine_until_it_is_reset(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_API_KEY")}
    environment["MENTRA_HOME"] = str(tmp_path / "home")
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
