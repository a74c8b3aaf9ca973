"""The tool `shell`: what it runs, what a model reads of it, and where its limits are."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from kits.core import context

from mentra_nb.agent.results import MAX_RESULT_BYTES, limited
from mentra_nb.authorization import Subject
from mentra_nb.permission.policy import PolicyViolation, RuntimePolicy
from mentra_nb.sandbox.executor import LEFT_OUT
from mentra_nb.tools.builtin.shell import ShellTool
from mentra_nb.tools.clipping import as_printed
from mentra_nb.tools.schema import ToolError
from mentra_nb.tools.tool import Tool

pytestmark = pytest.mark.anyio


async def call(made: Tool, folder: Path, policy: RuntimePolicy | None = None, **arguments: Any) -> Any:
    """Validate and run, as the scheduler does."""
    ctx = context(folder, policy)
    return (await made.execute(ctx, made.validate(arguments))).content


ON = RuntimePolicy.permissive()


async def test_shell_returns_what_the_command_wrote(tmp_path: Path) -> None:
    assert await call(ShellTool(), tmp_path, ON, command="echo out; echo err >&2") == "out\nerr"
    assert await call(ShellTool(), tmp_path, ON, command="true") == "(no output)"


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("echo out; exit 3", "out\n[exit status 3]"),
        ("kill -9 $$", "[killed by a signal]"),
        ("echo before; sleep 60", "before\n[timed out after 0.3s and was killed]"),
    ],
)
async def test_a_failed_command_is_an_error_that_says_how(tmp_path: Path, command: str, text: str) -> None:
    with pytest.raises(ToolError) as failure:
        await call(ShellTool(), tmp_path, ON, command=command, timeoutMs=300)
    assert str(failure.value) == text


async def test_truncation_is_said(tmp_path: Path) -> None:
    policy = RuntimePolicy(allow_shell_commands=True, max_output_bytes_per_stream=3)
    text = await call(ShellTool(), tmp_path, policy, command="printf 12345")
    assert text == f"12\n{LEFT_OUT}\n5\n[stdout truncated: of 5 bytes, 1 line, the middle is left out]"


async def test_the_reason_and_the_status_stand_at_the_end_of_long_output(tmp_path: Path) -> None:
    with pytest.raises(ToolError) as failure:
        await call(ShellTool(), tmp_path, ON, command="seq 1 100000; echo THE-REASON >&2; exit 3")
    text = str(failure.value)
    assert text.startswith("1\n2\n3\n")
    assert text.endswith(
        "\n99999\n100000\nTHE-REASON\n"
        "[stdout truncated: of 588895 bytes, 100000 lines, the middle is left out]\n[exit status 3]"
    )
    assert limited(text) == text


async def test_both_streams_keep_their_beginning_and_end(tmp_path: Path) -> None:
    text = await call(ShellTool(), tmp_path, ON, command="seq 1 90000; seq 100001 190000 >&2")
    lines = text.split("\n")
    assert (lines[0], lines[-3]) == ("1", "190000")
    assert {"90000", "100001"} <= set(lines)
    assert lines[-2].startswith("[stdout truncated: of ")
    assert lines[-1].startswith("[stderr truncated: of ")
    assert limited(text) == text


async def test_one_endless_line_is_shown_in_part(tmp_path: Path) -> None:
    text = await call(ShellTool(), tmp_path, ON, command="head -c 60000 /dev/zero | tr '\\0' x")
    head, gap, tail, notice = text.split("\n")
    assert set(head) == set(tail) == {"x"}
    assert 40_000 < len(head) + len(tail) < MAX_RESULT_BYTES
    assert (gap, notice) == (LEFT_OUT, "[stdout truncated: of 60000 bytes, 1 line, the middle is left out]")


async def test_what_was_left_in_the_background_is_said_to_be_killed(tmp_path: Path) -> None:
    text = await call(ShellTool(), tmp_path, ON, command="nohup sleep 60 >/dev/null 2>&1 & echo started")
    assert text == "started\n[what it left running in the background was killed when it returned]"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (r"\033[1;31mred\033[0m text", "red text"),
        (r"\033]0;title\007after", "after"),
        (r" 10%%\r 50%%\r100%%\ndone", "100%\ndone"),
        (r"one\r\ntwo\r\n", "one\ntwo"),
        (r"N\bNA\bAME", "NAME"),
        (r"plain [0m", "plain [0m"),
    ],
)
async def test_a_model_reads_what_a_terminal_would_show(tmp_path: Path, written: str, shown: str) -> None:
    assert await call(ShellTool(), tmp_path, ON, command=f"printf '{written}'") == shown


def test_control_codes_are_removed_in_linear_time() -> None:
    began = time.process_time()
    as_printed("\x1b[0" * 500_000 + "\x1b]" * 500_000 + "\x08" * 500_000 + "\r" * 500_000)
    assert time.process_time() - began < 5


async def test_policy_can_deny_shell_tool_execution(tmp_path: Path) -> None:
    with pytest.raises(PolicyViolation, match="disabled by the runtime policy"):
        await call(ShellTool(), tmp_path, RuntimePolicy(), command="true")


async def test_shell_working_directory_overrides_the_default(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    assert await call(ShellTool(), tmp_path, ON, command="pwd", workingDirectory="sub") == str(tmp_path / "sub")
    with pytest.raises(ToolError, match="is not a folder"):
        await call(ShellTool(), tmp_path, ON, command="pwd", workingDirectory="none")
    with pytest.raises(PolicyViolation, match="outside the runtime policy roots"):
        await call(ShellTool(), tmp_path, ON, command="pwd", workingDirectory="..")


async def test_shell_tool_emits_progress_events_with_output_lines(tmp_path: Path) -> None:
    lines: list[str] = []
    await ShellTool().execute(context(tmp_path, ON, lines.append), {"command": "echo one; echo two"})
    assert lines == ["stdout: one", "stdout: two"]


async def test_a_command_sees_the_allowed_variables_only(tmp_path: Path) -> None:
    text = await call(ShellTool(), tmp_path, ON, command="env")
    assert {line.split("=")[0] for line in text.splitlines()} - {"PWD", "_", "SHLVL", "OLDPWD"} == {"PATH"}


def test_the_preview_of_a_command_shows_what_would_run_where(tmp_path: Path) -> None:
    made = ShellTool()
    arguments = made.validate({"command": "ls", "justification": "to see", "timeoutMs": 5})
    assert made.preview(context(tmp_path), arguments).structured_input == {
        "kind": "shell",
        "command": "ls",
        "working_directory": str(tmp_path),
        "timeout_ms": 5,
        "justification": "to see",
        "background": False,
    }
    assert made.subject(context(tmp_path), arguments) == Subject.shell("ls")


@pytest.mark.parametrize("arguments", [{}, {"command": ""}, {"command": 3}, {"command": "ls", "timeoutMs": -1}])
def test_a_command_must_be_a_text(arguments: dict[str, Any]) -> None:
    with pytest.raises(ToolError, match="invalid arguments"):
        ShellTool().validate(arguments)
