"""Saying something to the model while its turn runs: it is delivered once, and never lost in silence."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mentra_nb as mn
from mentra_nb.chat.api import conversation
from mentra_nb.chat.engine import engine, reset
from mentra_nb.chat.revising import listed
from mentra_nb.chat.turn import RunningTurn
from mentra_nb.errors import FailedToStreamResponse, HttpError, OperationDenied
from mentra_nb.notebook import saying
from mentra_nb.notebook.drive import Questions, StopButton, follow
from mentra_nb.notebook.grammar import parse
from mentra_nb.notebook.output import EMPTY
from mentra_nb.notebook.saying import SayLine
from mentra_nb.notebook.typed import parse_said
from mentra_nb.notebook.view import TurnView
from mentra_nb.page.render import Bundle
from mentra_nb.providers.scripted import ScriptedAnswer, ScriptedProvider, failure, text, tool_calls


class Page:
    """Keeps what is shown."""

    def __init__(self) -> None:
        self.shown: dict[str, Bundle] = {}

    def show(self, data: Bundle, display_id: str | None = None) -> None:
        self.shown[display_id or str(len(self.shown))] = data

    def update(self, data: Bundle, display_id: str) -> None:
        self.shown[display_id] = data

    def texts(self) -> list[str]:
        return [str(each["text/plain"]) for each in self.shown.values() if each.get("text/plain")]


class Waiting:
    """A tool that waits until it is let go."""

    def __init__(self) -> None:
        self.began, self.goes = threading.Event(), threading.Event()

        @mn.tool(asks=False)
        def wait() -> str:
            "Wait."
            self.began.set()
            self.goes.wait(20)
            return "waited"

        self.tool = wait


@pytest.fixture
def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Waiting]:
    monkeypatch.setenv("MENTRA_HOME", str(tmp_path))
    reset()
    tool = Waiting()
    yield tool
    tool.goes.set()
    reset()


def begun(waiting: Waiting, *answers: ScriptedAnswer) -> tuple[RunningTurn, ScriptedProvider]:
    """Begin a turn that calls the waiting tool first, and return once it waits."""
    provider = ScriptedProvider([tool_calls([("wait", {})]), *answers])
    engine().use(provider, "scripted")
    turn = conversation().start("go", tools=[waiting.tool])
    assert waiting.began.wait(20)
    return turn, provider


def sent(provider: ScriptedProvider, n: int) -> list[str]:
    return [message.text() for message in provider.recorded_requests[n].messages if message.text()]


def test_what_is_said_comes_with_the_next_request_once(waiting: Waiting) -> None:
    turn, provider = begun(waiting, text("ok"), text("short"), text("and ok"))
    turn.say("in euros")
    turn.say("and short")
    waiting.goes.set()
    turn.wait()
    assert not turn.has_unread
    mn.ask("more?")
    everything = [sent(provider, n) for n in range(len(provider.recorded_requests))]
    assert everything[1][:2] == ["go", "in euros"]
    assert everything[-1].count("in euros") == everything[-1].count("and short") == 1
    said = [message.text() for message in conversation().history]
    assert (said.count("in euros"), said.count("and short")) == (1, 1)
    assert listed().question.tolist() == ["go", "more?"]  # what was said is part of its exchange
    assert mn.messages().query("kind == 'user_turn'").text.tolist() == ["go", "in euros", "and short", "more?"]


def test_what_is_said_before_the_session_is_open_is_not_lost(waiting: Waiting) -> None:
    engine().use(ScriptedProvider([text("ok"), text("ok")]), "scripted")
    hold, chat = threading.Event(), conversation()
    engine().portal().start_task_soon(hold_up, hold)  # the engine does nothing else meanwhile
    turn = chat.start("go")
    turn.say("in euros")
    hold.set()
    turn.wait()
    assert [message.text() for message in conversation().history].count("in euros") == 1


async def hold_up(until: threading.Event) -> None:
    until.wait(1)  # `say` waits for the engine too


def test_what_was_not_read_is_said_and_goes_with_the_next_question(waiting: Waiting) -> None:
    turn, provider = begun(waiting, text("again"))
    page = Page()
    view = TurnView(page, live=True, hz=100)
    turn.say("in euros")
    turn.stop()
    waiting.goes.set()
    turn.wait()
    stop = StopButton()
    follow(turn, view, Questions(turn, view, "page", scopes=(), stop=stop), stop, 0.0)
    assert f"ℹ {saying.UNREAD}" in page.texts()
    assert "ℹ You said: in euros" in page.texts()
    mn.ask("more?")
    assert sent(provider, 1).count("in euros") == 1
    with pytest.raises(OperationDenied, match="the turn has ended"):
        turn.say("late")


def test_an_answer_in_another_cell_that_does_not_fit_is_told_why_at_once_and_answers_nothing(waiting: Waiting) -> None:
    turn, _ = begun(waiting, text("ok"))
    stop = StopButton()
    questions = Questions(turn, TurnView(Page(), live=True, hz=100), "page", scopes=(), stop=stop)
    for line in ("allow 0", "answer 1 city=Santa Fe", "deny because"):
        served = questions.on_command(f"%mentra {line}", True)
        assert served is not None
        assert f"'{line}' is not carried out" in served().text
    assert questions.on_command("%mentra allow me to explain", True) is None
    waiting.goes.set()
    turn.wait()


def test_what_a_failed_turn_was_told_is_told_once_more_and_only_once(waiting: Waiting) -> None:
    turn, provider = begun(waiting, failure(HttpError(400)), text("ok"), text("ok"))
    turn.say("in euros")
    waiting.goes.set()
    turn.wait()
    assert isinstance(turn.future.exception(), FailedToStreamResponse)
    conversation().resume().result()
    assert sent(provider, 2).count("in euros") == 1
    mn.ask("more?")
    assert sent(provider, 3).count("in euros") == 1


def test_the_line_is_a_command_only_while_a_turn_runs(waiting: Waiting, shell: Any, capsys: Any) -> None:
    assert parse("say hello in French").prompt == "say hello in French"
    with pytest.raises(OperationDenied, match="say TEXT is for a turn that runs"):
        shell.run_line_magic("mentra", "say")
    turn, provider = begun(waiting, text("ok"))
    shell.run_line_magic("mentra", "say hello in French  # please")
    assert saying.SAID in capsys.readouterr().out
    waiting.goes.set()
    turn.wait()
    assert sent(provider, 1) == ["go", "hello in French  # please"]
    assert parse("say it again").prompt == "say it again"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("%mentra say in euros, please", "in euros, please"),
        ("  %mentra say  x = 1  # why\n", "x = 1  # why"),
        ("%mentra say", None),
        ("%mentra says who?", None),
        ("x = 1\n%mentra say hi", None),
        ("%mentra -- say hi", None),
        ("%%mentra\nsay hi", None),
    ],
)
def test_a_cell_that_says_something_is_told_from_others(code: str, said: str | None) -> None:
    assert parse_said(code) == said


def test_the_field_comes_when_nothing_is_being_written_and_goes_with_the_turn(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mentra_nb.event.screen import AssistantTokenDelta

    turn, provider = begun(waiting, text("ok"))
    page = Page()
    view = TurnView(page, live=True, hz=1000)
    line = SayLine(turn, view)
    line.step()
    assert page.shown == {}
    monkeypatch.setattr(saying, "AFTER", 0.0)
    view.handle(AssistantTokenDelta(delta="I am wri"))
    line.step()
    assert page.shown == {}
    view.settle()
    line.step()
    line.step()
    fields = [key for key, data in page.shown.items() if "application/vnd.jupyter.widget-view+json" in data]
    assert len(fields) == 1
    for content in ({"said": "  "}, {"said": 3}, "in euros", {"said": " in euros "}):
        line.hear(content)
    line.close()
    line.close()
    assert page.shown[fields[0]] == EMPTY
    waiting.goes.set()
    turn.wait()
    assert sent(provider, 1) == ["go", "in euros"]


def test_a_line_about_what_was_said_does_not_cut_the_text_that_is_written() -> None:
    from mentra_nb.event.screen import AssistantTokenDelta, Notice

    page = Page()
    view = TurnView(page, live=True, hz=1000)
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for event in (
        AssistantTokenDelta(delta="one "),
        Notice(severity="info", message="You said: x"),
        AssistantTokenDelta(delta="two"),
    ):
        events.put(event)
        view.handle(event)
    view.settle()
    assert page.texts() == ["one two", "ℹ You said: x"]
