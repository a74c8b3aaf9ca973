"""What stays in a notebook's file of a call holds no secret; the open question shows all that would run."""

from __future__ import annotations

import json
from typing import Any

import pytest
from kits.secret_vectors import KEYS, SECRET

from mentra_nb.authorization import PermissionQuestion, Subject, ToolAuthorizationPreview
from mentra_nb.content import ToolUse
from mentra_nb.event import types as e
from mentra_nb.event.projections import to_session
from mentra_nb.event.screen import Notice, QuestionAnswered
from mentra_nb.notebook import asking
from mentra_nb.notebook.view import TurnView
from mentra_nb.page.render import Bundle, line

KEY = KEYS["GitHub"]
PARTS = (KEY[:12], KEY[12:26], KEY[20:], SECRET[2:12])
COMMAND = f"curl -u ann:{SECRET} -H 'X-Api-Key: {SECRET}' https://example.org"


class Page:
    def __init__(self) -> None:
        self.outputs: dict[str, Bundle] = {}

    def show(self, data: Bundle, display_id: str | None = None) -> None:
        self.outputs[display_id or str(len(self.outputs))] = data

    update = show


def test_a_line_is_without_secrets_in_each_of_its_parts() -> None:
    data = line(f"shell {COMMAND}", note=f"TOKEN={SECRET}", detail=f"a\nfound {KEY}\nb")
    assert [part for part in PARTS if part in json.dumps(data)] == []
    assert data["text/plain"] == (
        "shell curl -u ann:[redacted] -H 'X-Api-Key: [redacted]' https://example.org  TOKEN=[redacted]"
    )
    assert "a\nfound [redacted]\nb" in data["text/html"]


@pytest.mark.parametrize("shift", range(0, 46, 3))
def test_a_call_leaves_no_part_of_a_secret_on_the_page(shift: int) -> None:
    page = Page()
    view = TurnView(page, live=True, hz=1e9, verbose=True)
    command = f"{'echo word; ' * 20}"[: 100 - shift] + f" {COMMAND}"
    use = ToolUse(id="1", name="shell", input={"command": command, "password": "swordfish", "key": KEY})
    question = PermissionQuestion(
        agent_id="a",
        agent_name="a",
        model="m",
        tool_name="shell",
        tool_call_id="1",
        arguments=use.input,
        preview=ToolAuthorizationPreview(working_directory="/", raw_input=use.input, structured_input=use.input),
        request_id="q",
        session_id="s",
        description="?",
        subject=Subject.text(command),
        arguments_hash="h",
        asked_at=0.0,
        deadline=1e12,
    )
    output = f"{'word ' * 4000}"[: 200 - shift] + f" {KEY} " + "word " * 4000
    output = output[: 16_000 - shift] + f" {KEY} " + output
    of_call: dict[str, Any] = {"agent_id": "a", "tool_name": "shell", "tool_call_id": "1"}
    events: tuple[e.AgentEvent, ...] = (
        e.ReasoningDelta(agent_id="a", delta=f"I use {KEY}."),
        e.ToolUseReady(agent_id="a", index=0, call=use),
        e.ToolCallStarted(agent_id="a", call=use),
        e.ToolExecutionProgress(agent_id="a", id="1", name="shell", progress=f"TOKEN={SECRET}"),
        e.ToolExecutionFinished(**of_call, is_error=False, output_preview=output),
    )
    for event in events:
        shown = to_session(event)
        assert shown is not None
        view.handle(shown)
        view.tick()
    view.question(question, {"text/plain": asking.question_text(question)})
    assert SECRET in json.dumps(page.outputs)  # a person decides about what runs
    for outcome in ("denied", "allowed"):
        view.question(question, None)
        answered: dict[str, Any] = {"request_id": "q", "tool_call_id": "2", "tool_name": "shell", "outcome": outcome}
        view.handle(QuestionAnswered(**answered, decided_by="headless", reason=f"no {KEY}"))
    view.handle(Notice(severity="warning", message=f"the address https://ann:{SECRET}@h is wrong"))
    view.finish(why=(f"the server said: bad key {KEY}", "try again"))
    page.outputs = {name: data for name, data in page.outputs.items() if "asks:" not in data["text/plain"]}
    written = json.dumps(page.outputs, ensure_ascii=False)
    assert [part for part in (*PARTS, "swordfish") if part in written] == []
    assert written.count("[redacted]") > 8
