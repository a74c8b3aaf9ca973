"""A turn drawn from its events, without a page: outputs, number of updates, and bytes."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import Any

import pytest

from mentra_nb.authorization import (
    PermissionDecision,
    PermissionQuestion,
    Subject,
    ToolAuthorizationPreview,
    ToolCapability,
)
from mentra_nb.content import TokenUsage
from mentra_nb.event.screen import (
    AssistantMessageCompleted,
    AssistantReasoningDelta,
    AssistantTokenDelta,
    MemoryRecalled,
    QuestionAnswered,
    RetryNotice,
    SessionEvent,
    SessionStarted,
    TasksUpdated,
    TaskUpdated,
    ToolCompleted,
    ToolDecided,
    ToolProgress,
    ToolQueued,
    ToolStarted,
    UsageReported,
    UserMessage,
)
from mentra_nb.forms import Form
from mentra_nb.notebook.ended import why
from mentra_nb.notebook.text_blocks import MAX_BLOCK, MIN_BLOCK
from mentra_nb.notebook.typed import parse_answer, parse_reply
from mentra_nb.notebook.view import MAX_GROWTH, TurnView
from mentra_nb.page.render import Bundle


class Recorder:
    """Holds the outputs a page would hold."""

    def __init__(self) -> None:
        self.shown: list[Bundle] = []
        self.by_id: dict[str, int] = {}
        self.sent = self.updates = 0

    def show(self, data: Bundle, display_id: str | None = None) -> None:
        if display_id is not None:
            self.by_id[display_id] = len(self.shown)
        self.shown.append(data)
        self._count(data)

    def update(self, data: Bundle, display_id: str) -> None:
        self.shown[self.by_id[display_id]] = data
        self.updates += 1
        self._count(data)

    def _count(self, data: Bundle) -> None:
        self.sent += sum(len(text) for text in data.values())

    def texts(self) -> list[str]:
        return [data["text/plain"] for data in self.shown]


def draw(*events: SessionEvent, live: bool = True, hz: float = 1e9, **footer: Any) -> Recorder:
    out = Recorder()
    view = TurnView(out, live=live, hz=hz)
    for event in events:
        view.handle(event)
        view.tick()
    view.finish(**footer)
    return out


def deltas(text: str, size: int = 20) -> list[SessionEvent]:
    return [AssistantTokenDelta(delta=text[n : n + size]) for n in range(0, len(text), size)]


PARAGRAPHS = "\n\n".join(f"Paragraph {n} " + "of words " * 30 for n in range(60)) + "\n"


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("size", [1, 20, 5000])
def test_text_is_shown_whole_in_blocks_that_end_with_a_paragraph(live: bool, size: int) -> None:
    out = draw(*deltas(PARAGRAPHS, size), live=live, hz=12.0)
    assert "".join(out.texts()) == PARAGRAPHS
    assert len(out.shown) > 5
    assert all(len(text) < MIN_BLOCK + 400 and text.startswith("Paragraph ") for text in out.texts())


def test_a_block_of_code_is_not_cut_at_its_blank_lines() -> None:
    code = "```python\n" + "x = 1\n\n" * (MIN_BLOCK // 6) + "```\n\n"
    out = draw(*deltas("Before.\n\n" + code + "After.\n", 100))
    assert out.texts() == ["Before.\n\n" + code, "After.\n"]


@pytest.mark.parametrize(("size", "hz"), [(20, 12.0), (1500, 1e9)])
def test_a_very_long_block_of_code_goes_on_as_code_in_the_next(size: int, hz: float) -> None:
    text = "~~~~html\n" + "<b>line</b>\n" * (MAX_BLOCK // 6) + "~~~~\n"
    out = draw(*deltas(text, size), hz=hz)
    assert "".join(out.texts()) == text
    assert len(out.shown) > 1
    assert all(data["text/html"].count("<pre") == 1 for data in out.shown)
    assert all("<p>" not in data["text/html"] for data in out.shown)


def test_blocks_of_code_are_numbered_through_the_turn() -> None:
    long = "~~~html\n" + "line\n" * (MAX_BLOCK // 4) + "~~~\n"
    text = "```\na\n```\n" + long + "\n```\nb\n```\n"
    out = draw(*deltas(text, 100), *CALL, DONE, *deltas("```\nc\n```\n"))
    numbers = [number for data in out.shown for number in re.findall(r"<span>\[(\d)\]</span>", data["text/html"])]
    assert len(numbers) > 4
    assert list(dict.fromkeys(numbers)) == ["1", "2", "3", "4"]
    assert numbers == sorted(numbers)
    assert (numbers.count("1"), numbers.count("3"), numbers.count("4")) == (1, 1, 1)


@pytest.mark.parametrize("live", [True, False])
def test_blocks_of_code_are_numbered_through_rounds_with_tools_between(live: bool) -> None:
    rounds: list[SessionEvent] = []
    for n in range(3):
        rounds += [*deltas(f"```python\nx = {n}\n```\n\nor\n\n    y = {n}\n", 7), *CALL, DONE]
    out = draw(*rounds, *deltas("```\nlast\n```"), live=live)
    numbers = [number for data in out.shown for number in re.findall(r"<span>\[(\d)\]</span>", data["text/html"])]
    assert numbers == ["1", "2", "3", "4", "5", "6", "7"]


def test_one_endless_line_is_cut_too() -> None:
    assert all(len(text) <= MAX_BLOCK + 20 for text in draw(*deltas("x" * 50_000)).texts())


def test_what_is_sent_grows_with_the_text_and_not_with_its_square() -> None:
    """With every delta drawn, ten times the text is about ten times the bytes."""
    short, long = draw(*deltas(PARAGRAPHS, 100)).sent, draw(*deltas(PARAGRAPHS * 10, 100)).sent
    assert long < 12 * short


def test_a_growing_block_is_drawn_the_less_often_the_longer_it_is(clock: Clock) -> None:
    """What is sent of a block of any length is at most `MAX_GROWTH` characters a second, and one drawing."""
    for size in (100, 1_000, 8_000):
        out = Recorder()
        view = TurnView(out, live=True, hz=12.0)
        view.handle(AssistantTokenDelta(delta="```\n" + "x" * size + "\n"))
        for _ in range(200):
            view.handle(AssistantTokenDelta(delta="y"))
            clock.wait(view, 0.05)
        assert out.sent <= 10 * MAX_GROWTH + size + 1_000
        assert out.updates >= min(10 * 9, 10 * MAX_GROWTH / (size + 1_200)) / 2


def test_updates_are_no_more_than_asked_for() -> None:
    assert draw(*deltas(PARAGRAPHS, 5), hz=0.1).updates < 60  # one a block, and one for the whole time


CALL = (
    ToolQueued(
        tool_call_id="1", tool_name="shell", summary="shell: ls", mutability="unknown", input_json='{"command": "ls"}'
    ),
    ToolStarted(tool_call_id="1", tool_name="shell"),
)
DONE = ToolCompleted(tool_call_id="1", tool_name="shell", summary="3 files", is_error=False, duration_ms=200)


def test_a_tool_call_becomes_one_line() -> None:
    assert draw(*CALL, DONE).texts() == ["✓ shell  ls  0.2 s"]
    assert draw(*CALL, DONE, live=False).texts() == ["✓ shell  ls"]


def test_a_call_that_never_ran_says_so() -> None:
    assert draw(*CALL).texts() == ["✗ shell  ls  not finished"]
    assert draw(CALL[0]).texts() == ["✗ shell  ls  not run"]
    refused = DONE.model_copy(
        update={"is_error": True, "duration_ms": None, "output": "Tool execution denied: invalid arguments: path"}
    )
    out = draw(*CALL, refused)
    assert out.texts() == ["✗ shell  ls  not run: invalid arguments: path"]
    stopped = refused.model_copy(update={"output": "stopped before it finished; it may have taken effect"})
    assert draw(*CALL, stopped).texts() == ["✗ shell  ls  not finished"]


def decided(**fields: Any) -> ToolDecided:
    return ToolDecided(tool_call_id="1", tool_name="shell", **fields)


@pytest.mark.parametrize(
    ("event", "who"),
    [
        (decided(allowed=True, decided_by="rule", pattern="head *"), "rule head *"),
        (decided(allowed=True, decided_by="setting"), "setting ask='changes'"),
        (decided(allowed=True, decided_by="policy"), "policy"),
        (decided(allowed=True, decided_by="user"), "you, earlier"),
        (decided(allowed=True, decided_by="runtime"), ""),
    ],
)
def test_a_call_that_ran_unasked_says_who_allowed_it(event: ToolDecided, who: str) -> None:
    (text,) = draw(*CALL, event, DONE).texts()
    assert text == "✓ shell  ls  0.2 s" + (f" · {who}" if who else "")


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (decided(allowed=False, decided_by="rule", pattern="rm *", reason="no"), "denied by rule rm *: no"),
        (
            decided(allowed=False, decided_by="policy", reason="outside the roots"),
            "denied by policy: outside the roots",
        ),
        (decided(allowed=False, decided_by="hook", reason="not on Fridays"), "denied by hook: not on Fridays"),
        (decided(allowed=False, decided_by="headless", reason="nobody is there"), "denied: nobody is there"),
        (decided(allowed=False, decided_by="runtime", reason="no such tool"), "not run: no such tool"),
        (decided(allowed=False, decided_by="policy", reason="x" * 500), "denied by policy: " + "x" * 199 + "…"),
    ],
)
def test_a_denied_call_is_one_line_with_the_reason(event: ToolDecided, why: str) -> None:
    result = DONE.model_copy(update={"is_error": True, "duration_ms": None, "output": f"Tool execution denied: {why}"})
    assert draw(*CALL, event, result).texts() == [f"✗ shell  ls  {why}"]


def answered(**fields: Any) -> QuestionAnswered:
    return QuestionAnswered(request_id="q", tool_call_id="1", tool_name="shell", **fields)


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (answered(outcome="denied", reason="it is late"), "denied by you: it is late"),
        (answered(outcome="denied"), "denied by you"),
        (answered(outcome="denied", decided_by="timeout", reason="nobody answered"), "denied: no answer in time"),
        (answered(outcome="denied", decided_by="cancelled", reason="the turn was stopped"), "not run"),
    ],
)
def test_a_denied_question_is_the_line_of_its_call(event: QuestionAnswered, why: str) -> None:
    second = decided(allowed=False, decided_by=event.decided_by, reason="said twice")
    result = DONE.model_copy(update={"is_error": True, "duration_ms": None, "output": "Tool execution denied: why"})
    assert draw(*CALL, event, second, result).texts() == [f"✗ shell  ls  {why}"]


@pytest.mark.parametrize(
    ("output", "ending"),
    [
        ("x\n[exit status 3]", "exit status 3"),
        ("[timed out after 2s and was killed]", "timed out after 2s and was killed"),
        ("[killed by a signal]", "killed by a signal"),
        ("KeyError: 'amount'\nmore", "KeyError: 'amount'"),
    ],
)
def test_the_row_of_a_failed_call_says_how_it_ended(output: str, ending: str) -> None:
    failed = DONE.model_copy(update={"is_error": True, "output": output})
    assert draw(*CALL, failed).texts() == [f"✗ shell  ls  0.2 s · {ending}"]


def test_a_long_command_is_cut_in_its_row_and_whole_in_the_fold() -> None:
    command = "echo " + "ä" * 24_000 + " END"
    queued = CALL[0].model_copy(update={"input_json": json.dumps({"command": command})})
    out = draw(queued, CALL[1], DONE)
    (row,) = out.texts()
    assert len(row) < 110
    assert row.split("  ")[1].endswith("…")
    assert out.shown[0]["text/html"].count(" END") == 1


def test_the_fold_shows_arguments_as_they_are_and_not_as_json() -> None:
    given = json.dumps({"path": "a.txt", "content": 'one "two"\nthree'})
    html = draw(CALL[0].model_copy(update={"input_json": given}), CALL[1], DONE).shown[0]["text/html"]
    assert "path: a.txt\ncontent:\n  │ one &quot;two&quot;\n  │ three\n\n3 files" in html
    (row,) = draw(CALL[0].model_copy(update={"input_json": '{"month": "März", "n": 2}'}), CALL[1], DONE).texts()
    assert row == '✓ shell  month="März", n=2  0.2 s'


def test_the_progress_of_a_tool_is_what_a_terminal_shows_in_the_end(clock: Clock) -> None:
    out = Recorder()
    view = TurnView(out, live=True, hz=12.0)
    for event in (*CALL, ToolProgress(tool_call_id="1", tool_name="shell", progress="\x1b[31m 10 %\r 20 %\r\n")):
        view.handle(event)
    clock.wait(view, 0.3)
    assert out.texts() == ["⋯ shell  ls  20 %"]


def test_while_a_call_runs_the_last_lines_of_its_output_are_beneath_its_row(clock: Clock) -> None:
    out = Recorder()
    view = TurnView(out, live=True, hz=12.0)
    said = [
        *(f"stdout: line {n}" for n in range(1, 11)),
        "stderr: <b> 10 %\r",
        "stderr: <b> 20 %\r",
        "stderr: <b> 30 %",
    ]
    for event in (*CALL, *(ToolProgress(tool_call_id="1", tool_name="shell", progress=text) for text in said)):
        view.handle(event)
        clock.wait(view, 0.3)
    (box,) = re.findall(r"<details open>.*<pre[^>]*>(.*?)</pre>", out.shown[0]["text/html"], re.DOTALL)
    assert box.split("\n") == [*(f"stdout: line {n}" for n in range(4, 11)), "stderr: &lt;b&gt; 30 %"]
    view.handle(DONE)
    assert "line 4" not in out.shown[0]["text/html"]
    assert "<details>" in out.shown[0]["text/html"]


@pytest.mark.parametrize(
    ("tool", "given", "code"),
    [
        ("python", {"code": "import math\nx = 1  # one"}, "import math\nx = 1  # one"),
        ("shell", {"command": "for f in *; do echo 'x'; done", "timeout": 3}, "for f in *; do echo 'x'; done"),
    ],
)
@pytest.mark.parametrize("live", [True, False])
def test_the_fold_has_code_in_colours_other_arguments_and_the_end_of_the_output_in_sight(
    tool: str, given: dict[str, Any], code: str, live: bool
) -> None:
    events = [event.model_copy(update={"tool_name": tool}) for event in (*CALL, DONE)]
    events[0] = events[0].model_copy(update={"input_json": json.dumps(given)})
    events[2] = events[2].model_copy(update={"output": "a\nlast"})
    html = draw(*events, live=live).shown[0]["text/html"]
    first, *others, last = re.findall(r"<pre[^>]*>(.*?)</pre>", html, re.DOTALL)
    assert "--jp-mirror-editor-keyword-color" in first
    assert unescape(re.sub(r"</?span[^>]*>", "", first)).strip() == code
    assert others == [f"{name}: {value}" for name, value in given.items() if name == "timeout"]
    assert last == "a\nlast"
    assert re.search(r'<div style="[^"]*column-reverse[^"]*" tabindex="0"><pre[^>]*>a\nlast', html)


def test_the_footer_has_tokens_always_and_what_varies_only_for_a_person() -> None:
    used = UsageReported(
        agent_id="a", input_tokens=1234, output_tokens=300, cache_read_tokens=0, cache_creation_tokens=0
    )
    assert draw(used, cost=0.004, seconds=3.14).texts() == ["1.2k in / 300 out · $0.004 · 3.1 s"]
    assert draw(used, seconds=3.14).texts() == ["1.2k in / 300 out · 3.1 s"]
    assert draw(used, model="m", cost=0.0, seconds=3.14).texts() == ["m · 1.2k in / 300 out · 3.1 s"]
    begun = UserMessage(text="hi", model="m")
    assert draw(begun, used, seconds=3.14).texts() == ["m · 1.2k in / 300 out · 3.1 s"]
    assert draw(used, cost=0.004, seconds=3.14, live=False).texts() == ["1.2k in / 300 out"]


@pytest.mark.parametrize(
    ("model", "tokens", "line"),
    [
        ("openai/gpt-4o", (10_000, 8_000), "10.0k in (80 % cached) / 300 out · context 8 % full"),
        ("anthropic/claude-sonnet-4-5", (2_000, 8_000), "10.0k in (80 % cached) / 300 out · context 5 % full"),
        ("openai/gpt-4o", (100, 0), "100 in / 300 out"),
        ("ollama/qwen3", (10_000, 0), "10.0k in / 300 out"),
    ],
)
def test_the_footer_says_how_much_was_cached_and_how_full_the_context_is(
    model: str, tokens: tuple[int, int], line: str
) -> None:
    """The share of the context is that of the last response, and is said where the size of the context is known."""
    sent, cached = tokens
    whole = TokenUsage(input_tokens=sent, output_tokens=300, cache_read_input_tokens=cached)
    earlier, last = (
        UsageReported(
            agent_id="a", input_tokens=n, output_tokens=300, cache_read_tokens=cached, cache_creation_tokens=0
        )
        for n in (90_000, sent)
    )
    assert draw(earlier, last, model=model, usage=whole).texts() == [f"{model} · {line}"]
    short = line.partition(" · ")[0].replace(" (80 % cached)", "")
    assert draw(earlier, last, model=model, usage=whole, live=False).texts() == [f"{model} · {short}"]


def test_a_failed_turn_has_a_footer_only_for_tokens_it_has_used() -> None:
    begun = UserMessage(text="hi", model="p/m")
    used = UsageReported(
        agent_id="a", input_tokens=1234, output_tokens=300, cache_read_tokens=0, cache_creation_tokens=0
    )
    assert draw(begun, seconds=0.3, failed=True).texts() == []
    assert draw(begun, seconds=0.3).texts() == ["p/m · 0.3 s"]
    assert draw(begun, used, seconds=3.14, failed=True).texts() == ["p/m · 1.2k in / 300 out · 3.1 s"]


def test_a_model_that_does_not_stream_is_shown_as_well_and_one_that_does_only_once() -> None:
    done = AssistantMessageCompleted(text="Hello.")
    assert draw(done).texts() == ["Hello."]
    assert draw(AssistantTokenDelta(delta="Hello."), done).texts() == ["Hello."]


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("%mentra allow", PermissionDecision(allow=True)),
        ("  %mentra allow once  # fine\n", PermissionDecision(allow=True)),
        ("%mentra allow always", PermissionDecision(allow=True, remember="session")),
        ("%mentra deny", PermissionDecision(allow=False)),
        ("%mentra deny because it is late # really", PermissionDecision(allow=False, reason="it is late # really")),
        ("%mentra stop", "stop"),
        ("%mentra stop writing so long", None),
        ("%mentra allow me to explain", None),
        ("%mentra allowance", None),
        ("%%mentra\nallow", None),
        ("%mentra allow\nprint(1)", None),
        ("x = 1\n%mentra allow", None),
        ("print('%mentra allow')", None),
        ("", None),
    ],
)
def test_only_a_cell_that_is_nothing_else_is_an_answer(code: str, answer: object) -> None:
    assert parse_answer(code) == answer


@pytest.mark.parametrize(("text", "allow"), [("a", True), ("Y", True), ("w", True), ("d", False), ("deny", False)])
def test_an_answer_may_be_one_letter(text: str, allow: bool) -> None:
    answer = parse_reply(text)
    assert isinstance(answer, PermissionDecision)
    assert answer.allow is allow


@pytest.mark.parametrize("text", ["", " ", "maybe", "\n", "allow x"])
def test_anything_else_typed_is_not_an_answer(text: str) -> None:
    assert parse_reply(text) is None


class Clock:
    """The view's clock, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("mentra_nb.notebook.view.time.monotonic", lambda: self.now)

    def wait(self, view: TurnView, seconds: float, step: float = 0.05) -> None:
        for _ in range(round(seconds / step)):
            self.now += step
            view.tick()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_living_line_says_what_is_waited_for_until_something_comes(clock: Clock) -> None:
    out = Recorder()
    view = TurnView(out, live=True, hz=12.0)
    clock.wait(view, 0.3)
    assert out.texts() == ["⋯ model  0 s"]
    clock.wait(view, 4.0)
    assert out.texts() == ["⋯ model  4 s"]
    assert out.updates == 4
    view.handle(AssistantReasoningDelta(delta="hm"))
    clock.wait(view, 1.0)
    assert out.texts() == ["⋯ thinking  5 s"]
    view.handle(AssistantTokenDelta(delta="Hello."))
    clock.wait(view, 1.0)
    assert '<p dir="auto">Hello.</p>' in out.shown[0]["text/html"]
    view.finish()
    assert out.texts() == ["Hello."]


def test_the_living_line_counts_from_when_the_turn_was_asked_for(clock: Clock) -> None:
    out = Recorder()
    view = TurnView(out, live=True, hz=12.0, since=clock.now - 0.2)
    view.handle(SessionStarted(session_id="s"))
    view.handle(UserMessage(text="hi", model="scripted/m"))
    clock.wait(view, 0.05)
    assert out.texts() == ["⋯ scripted/m  0 s"]
    clock.wait(view, 0.8)
    assert out.texts() == ["⋯ scripted/m  1 s"]


def test_the_living_line_names_the_model_that_is_asked_and_its_provider(clock: Clock) -> None:
    out = Recorder()
    view = TurnView(out, live=True, hz=12.0)
    view.handle(UserMessage(text="hi", model="p/m"))
    clock.wait(view, 0.3)
    assert out.texts() == ["⋯ p/m  0 s"]
    view.handle(AssistantReasoningDelta(delta="hm"))
    clock.wait(view, 1.0)
    assert out.texts() == ["⋯ p/m · thinking  1 s"]


@pytest.mark.parametrize("quiet", [True, False])
def test_nothing_of_the_living_line_stays(clock: Clock, quiet: bool) -> None:
    out = Recorder()
    view = TurnView(out, live=True, hz=12.0, quiet=quiet)
    clock.wait(view, 2.0)
    assert len(out.shown) == 1
    view.finish(model="m", cost=1.0)
    assert out.texts() == ["" if quiet else "m · $1.00"]


def test_a_run_without_a_page_has_no_living_line(clock: Clock) -> None:
    out = Recorder()
    clock.wait(TurnView(out, live=False, hz=12.0), 5.0)
    assert out.shown == []


def test_a_running_call_counts_its_seconds(clock: Clock) -> None:
    out = Recorder()
    view = TurnView(out, live=True, hz=12.0)
    for event in CALL:
        view.handle(event)
    clock.wait(view, 3.2)
    assert out.texts() == ["⋯ shell  ls  3 s"]
    view.handle(DONE)
    assert out.texts() == ["✓ shell  ls  0.2 s"]


def test_the_progress_of_a_tool_is_drawn_at_the_rate_of_the_screen_and_not_once_a_line(clock: Clock) -> None:
    out = Recorder()
    view = TurnView(out, live=True, hz=12.0)
    for event in CALL:
        view.handle(event)
    for n in range(20_000):
        view.handle(ToolProgress(tool_call_id="1", tool_name="shell", progress=f"stdout: {n}"))
        if not n % 100:
            clock.wait(view, 0.05)
    clock.wait(view, 0.2)
    assert out.updates <= 12 * 10.3
    assert out.texts() == ["⋯ shell  ls  10 s · stdout: 19999"]


QUESTION = PermissionQuestion(
    request_id="q",
    session_id="s",
    agent_id="a",
    agent_name="mentra",
    run_id="r",
    tool_call_id="1",
    tool_name="shell",
    description="why",
    subject="ls",
    arguments={"command": "ls"},
    preview=ToolAuthorizationPreview(working_directory=".", capabilities=(ToolCapability.PROCESS_EXEC,)),
    arguments_hash="",
    asked_at=0.0,
    deadline=0.0,
)


@pytest.mark.parametrize(("scope", "how"), [(None, "you, once"), ("session", "you, for this session")])
def test_an_allowed_call_is_one_line_that_says_who_allowed_it(clock: Clock, scope: Any, how: str) -> None:
    out = Recorder()
    view = TurnView(out, live=True, hz=12.0)
    tried = ToolProgress(tool_call_id="1", tool_name="shell", progress="what it printed in the sandbox")
    for event in (*CALL, tried):
        view.handle(event)
    view.question(QUESTION, None)
    view.question(QUESTION, {"text/plain": "CARD"})
    clock.wait(view, 1.0)
    waits, card = out.texts()
    assert waits == "⋯ shell  ls  waits for your answer; if the kernel is gone: %mentra resume"
    assert card == "CARD"
    allowed = QuestionAnswered(request_id="q", tool_call_id="1", tool_name="shell", outcome="allowed", rule_scope=scope)
    view.handle(allowed)
    view.handle(DONE)
    text, card = out.texts()
    assert text.startswith(f"✓ shell  ls  0.2 s · {how} ")
    assert card == ""
    view.handle(AssistantTokenDelta(delta="Then."))
    view.finish()
    assert out.texts()[1:] == ["Then."]  # in place of the card


def test_the_advice_after_a_question_nobody_could_be_asked_allows_this_very_call_and_no_other() -> None:
    out = Recorder()
    view = TurnView(out, live=False, hz=12.0)
    question = QUESTION.model_copy(update={"subject": Subject.path("a *.tmp", "b", absolute=("/a *.tmp", "/b"))})
    view.question(question, None)
    view.handle(
        QuestionAnswered(
            request_id="q", tool_call_id="1", tool_name="shell", outcome="denied", decided_by="headless", reason="-"
        )
    )
    assert "mn.allow('shell', pattern='a [*].tmp') and mn.allow('shell', pattern='b')" in out.texts()[0]


@pytest.mark.parametrize(
    ("answer", "note"),
    [
        ({"outcome": "denied", "decided_by": "headless"}, "rule x · values not filled in: nobody could be asked"),
        ({"outcome": "denied", "reason": "not now"}, "rule x · values not filled in: not now"),
        ({"outcome": "allowed"}, "rule x · values by you"),
    ],
)
def test_values_that_a_call_asked_for_leave_who_let_it(answer: dict[str, Any], note: str) -> None:
    out = Recorder()
    view = TurnView(out, live=False, hz=12.0)
    for event in (CALL[0], decided(allowed=True, decided_by="rule", pattern="x"), *CALL[1:]):
        view.handle(event)
    view.question(QUESTION.model_copy(update={"form": Form(who="A server", message="Where to?")}), None)
    view.handle(QuestionAnswered(request_id="q", tool_call_id="1", tool_name="shell", **answer))
    view.handle(DONE)
    assert f"✓ shell  ls  {note}" in out.texts()


@pytest.mark.parametrize(
    ("stop_reason", "reason", "advice"),
    [
        ("max_tokens", "limit of tokens", "go on"),
        ("context_overflow", "context is full", "new conversation"),
        ("content_filter", "content filter", "other words"),
        ("refusal", "refused", "other words"),
        ("error", "unusable", "another model"),
        ("budget", "limit of this turn", "go on"),
        ("stopped", "strategy", "go on"),
        ("unknown", "unknown reason (unknown)", "another model"),
        ("odd_new", "unknown reason (odd_new)", "another model"),
    ],
)
def test_each_reason_of_an_answer_that_is_not_whole_is_said_with_what_to_do(
    stop_reason: str, reason: str, advice: str
) -> None:
    found = why(stop_reason)
    assert found is not None
    assert reason in found[0]
    assert advice in found[1]


@pytest.mark.parametrize("stop_reason", [None, "end", "tool_use", "pause", "ended_by_tool", "cancelled"])
def test_nothing_is_said_of_an_answer_that_is_whole(stop_reason: str | None) -> None:
    assert why(stop_reason) is None


def test_code_is_coloured_only_once_it_stands(clock: Clock) -> None:
    out = Recorder()
    view = TurnView(out, live=True, hz=12.0)
    view.handle(AssistantTokenDelta(delta="```python\ndef f(): return 1\n"))
    clock.wait(view, 1.0)
    assert "def f()" in out.shown[0]["text/html"]
    assert "--jp-mirror-editor" not in out.shown[0]["text/html"]
    view.finish()
    assert "--jp-mirror-editor" in out.shown[0]["text/html"]


def test_the_fold_of_a_call_holds_the_whole_result() -> None:
    long = "line of output\n" * 500
    out = draw(*CALL, DONE.model_copy(update={"output": long}))
    assert out.shown[0]["text/html"].count("line of output") == 500


def retry(attempt: int, ms: int) -> SessionEvent:
    return RetryNotice(agent_id="a", error_message="HTTP 503: busy", attempt=attempt, max_attempts=5, next_delay_ms=ms)


def test_retries_are_one_line_that_is_updated() -> None:
    out = draw(retry(1, 120), retry(2, 900), retry(3, 2600), *deltas("Here."), retry(1, 4000), *deltas("There."))
    assert out.texts() == [
        "↻ HTTP 503: busy  again in 3 s (3 of 5)",
        "Here.",
        "↻ HTTP 503: busy  again in 4 s (1 of 5)",
        "There.",
    ]
    assert draw(retry(1, 120)).texts() == ["↻ HTTP 503: busy  again at once (1 of 5)"]


def test_the_texts_of_two_rounds_are_two_when_quiet() -> None:
    out = Recorder()
    view = TurnView(out, live=True, hz=1e9, quiet=True)
    for event in (AssistantTokenDelta(delta="I run a command."), *CALL, DONE, AssistantTokenDelta(delta="ok")):
        view.handle(event)
    view.finish()
    assert out.texts() == ["I run a command.", "ok"]


def test_the_end_of_a_background_command_is_one_line_and_its_beginning_is_the_row_of_its_call() -> None:
    def update(status: Any, detail: str | None = None) -> TaskUpdated:
        return TaskUpdated(task_id="bg-1", kind="background_task", status=status, title="bg-1", detail=detail)

    assert draw(update("running", "make")).texts() == []
    assert draw(update("finished")).texts() == ["▸ background task bg-1: finished"]
    assert draw(update("failed", "interrupted")).texts() == ["▸ background task bg-1: interrupted"]
    amid = draw(*deltas("One sent"), update("finished"), *deltas("ence."))
    assert amid.texts() == ["One sentence.", "▸ background task bg-1: finished"]


def test_what_a_turn_was_given_of_earlier_ones_is_one_folded_line() -> None:
    page = Recorder()
    view = TurnView(page, live=True, hz=1e9)
    view.handle(MemoryRecalled(lines=('[fact rev=3] "copper </details><script>x"', '[episode rev=4] "kettle"')))
    [shown] = page.shown
    assert shown["text/plain"].splitlines()[0] == "… 2 memories recalled"
    assert "<details><summary>" in shown["text/html"]
    assert "<script>" not in shown["text/html"]
    quiet = Recorder()
    TurnView(quiet, live=True, hz=1e9, quiet=True).handle(MemoryRecalled(lines=("x",)))
    assert quiet.shown == []


def board(*tasks: tuple[str, str], **more: Any) -> TasksUpdated:
    """A board of these statuses and subjects."""
    rows = [{"id": n, "status": status, "subject": subject} for n, (status, subject) in enumerate(tasks, 1)]
    return TasksUpdated(tasks=tuple({"blockedBy": [], "owner": "", **row, **more} for row in rows))


def test_the_task_board_is_one_list_that_is_updated_in_place_and_folded_when_all_is_done() -> None:
    page = Recorder()
    view = TurnView(page, live=True, hz=1e9)
    view.handle(board(("pending", "plan"), ("pending", "<b>build</b>\nnow"), blockedBy=[1]))
    view.tick()
    [shown] = page.shown
    assert shown["text/plain"].splitlines() == [
        "▸ tasks: 0 of 2 done",
        "  ☐ 1 plan  waits for 1",
        "  ☐ 2 <b>build</b>␊now  waits for 1",
    ]
    assert "<details open>" in shown["text/html"]
    assert "<b>" not in shown["text/html"]
    sent = page.sent
    for number in range(100):
        view.handle(AssistantTokenDelta(delta=f"{number} "))
    assert page.sent == sent
    view.handle(board(("in_progress", "plan"), ("pending", "build")))
    view.handle(board(("completed", "plan"), ("in_progress", "build"), owner="ada"))
    view.tick()
    assert page.shown[0]["text/plain"].splitlines()[1:] == ["  ☑ 1 plan  ada", "  ◐ 2 build  ada"]
    view.handle(board(("completed", "plan"), ("completed", "build")))
    view.finish()
    assert page.shown[0]["text/plain"] == "✓ tasks: 2 of 2 done"
    assert "<details open>" not in page.shown[0]["text/html"]
    assert "☑ 2 build" in page.shown[0]["text/html"]


def test_a_long_task_board_shows_what_is_left() -> None:
    page = Recorder()
    view = TurnView(page, live=False, hz=12.0)
    tasks = [("completed" if number < 40 else "pending", f"task {number}") for number in range(120)]
    view.handle(board(*tasks))
    view.tick()
    assert page.shown == []
    view.finish()
    lines = page.shown[0]["text/plain"].splitlines()
    assert (lines[0], lines[1], lines[-1]) == ("▸ tasks: 40 of 120 done", "  ☐ 41 task 40", "  … and 70 more")
    assert len(lines) == 52


def test_a_quiet_turn_shows_no_task_board() -> None:
    page = Recorder()
    view = TurnView(page, live=True, hz=1e9, quiet=True)
    view.handle(board(("pending", "plan")))
    view.tick()
    view.finish()
    assert [each for each in page.shown if "tasks" in each["text/plain"]] == []


def subagent(id: str, status: Any, detail: str | None = None) -> TaskUpdated:
    return TaskUpdated(task_id=id, kind="subagent", status=status, title="talk::reviewer", detail=detail)


def test_each_subagent_has_one_line_that_is_updated_in_place() -> None:
    page = Recorder()
    view = TurnView(page, live=True, hz=1e9)
    view.handle(subagent("a", "spawned", "check\nthe <b>files</b>"))
    view.handle(subagent("b", "spawned", "count"))
    view.tick()
    assert [each["text/plain"] for each in page.shown] == ["▸ talk::reviewer  started"] * 2
    assert "&lt;b&gt;files" in page.shown[0]["text/html"]
    view.handle(subagent("a", "running", "read"))
    view.handle(subagent("a", "running", "shell"))
    view.tick()
    assert page.shown[0]["text/plain"] == "▸ talk::reviewer  shell"
    view.handle(subagent("b", "failed", "it was stopped"))
    view.handle(subagent("a", "finished"))
    view.finish()
    assert [each["text/plain"] for each in page.shown[:2]] == [
        "✓ talk::reviewer  finished · 2 calls",
        "✗ talk::reviewer  failed · it was stopped",
    ]


def test_a_page_that_is_not_live_shows_only_how_subagents_ended() -> None:
    page = Recorder()
    view = TurnView(page, live=False, hz=12.0)
    for status in ("spawned", "running", "finished"):
        view.handle(subagent("a", status, "read"))
        view.tick()
    view.handle(subagent("b", "spawned", "count"))
    view.finish()
    assert [each["text/plain"] for each in page.shown] == ["✓ talk::reviewer  finished · 1 call"]


def test_the_context_of_a_subagent_is_not_that_of_the_conversation() -> None:
    page = Recorder()
    view = TurnView(page, live=True, hz=1e9)
    view.handle(UserMessage(text="go", model="openai/gpt-4o"))
    for agent, tokens in (("agent-1", 64_000), ("agent-2", 128_000)):
        counts = {"output_tokens": 0, "cache_read_tokens": 0, "cache_creation_tokens": 0}
        view.handle(UsageReported(agent_id=agent, input_tokens=tokens, **counts))
    view.finish(model="openai/gpt-4o")
    assert "192.0k in" in page.shown[-1]["text/plain"]
    assert "context 50 % full" in page.shown[-1]["text/plain"]


SECTION = (
    "## Section {n}\n\nThe *quick* fox jumps over the `lazy` dog. "
    + "It runs along the hedge, under the gate and over the hill. " * 18
    + "\n\n- one thing\n- another\n\n```python\ndef section(rows):\n    return sum(row for row in rows)\n```\n\n"
)


def test_a_long_answer_costs_a_page_few_bytes_and_its_last_words_are_shown(clock: Clock) -> None:
    """100 kB in 5,000 deltas, 500 of them a second, with about 1 kB around each message."""
    out = Recorder()
    view = TurnView(out, live=True, hz=12.0)
    text = "".join(SECTION.replace("{n}", str(n)) for n in range(100))[:100_000]
    for n, delta in enumerate(deltas(text, 20)):
        view.handle(delta)
        if n % 25 == 24:
            clock.wait(view, 0.05)
    view.finish()
    assert n == 4_999
    assert out.sent + 1_000 * (len(out.shown) + out.updates) <= 600_000
    assert "".join(out.texts()) == text
