"""Running shell commands: output, limits, and that no process is left."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mentra_nb.sandbox import capture, executor
from mentra_nb.sandbox.executor import LEFT_OUT, TIMED_OUT, CommandRequest, ExecOutput, LocalExecutor

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")]

A_MINUTE = 60.0
FOREVER = f"{shlex.quote(sys.executable)} -c 'import time; time.sleep({A_MINUTE})'"


def request(command: str, folder: Path, **options: Any) -> CommandRequest:
    return CommandRequest(command, folder, **{"timeout": 20.0, "env": {"PATH": os.environ["PATH"]}} | options)


async def run(command: str, folder: Path, **options: Any) -> ExecOutput:
    return await LocalExecutor().run(request(command, folder, **options))


async def until_gone(pid: int) -> None:
    with anyio.fail_after(10):
        while True:
            try:
                os.kill(pid, 0)
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except (ProcessLookupError, FileNotFoundError):
                return
            if state == "Z":  # dead, and not reaped yet
                return
            await anyio.sleep(0.01)


async def until_written(file: Path) -> str:
    with anyio.fail_after(10):
        while not file.exists() or not file.read_text().endswith("\n"):
            await anyio.sleep(0.01)
    return file.read_text()


async def test_both_streams_and_the_status_come_back(tmp_path: Path) -> None:
    output = await run("echo out; echo err >&2; exit 3", tmp_path)
    assert output == ExecOutput("out\n", "err\n", 3)
    assert not output.success


async def test_targeted_request_is_refused_instead_of_running_locally(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="a command for 'worker-1' cannot run here"):
        await run("touch ran", tmp_path, target="worker-1", transcript=tmp_path / "transcript")
    assert list(tmp_path.iterdir()) == []


async def test_it_runs_in_its_folder_with_nothing_to_read(tmp_path: Path) -> None:
    assert (await run("pwd; cat", tmp_path)).stdout == f"{tmp_path.resolve()}\n"


async def test_allowlisted_environment_is_enforced(tmp_path: Path) -> None:
    output = await run("env", tmp_path, env={"PATH": os.environ["PATH"], "ONLY": "this"})
    names = {line.split("=")[0] for line in output.stdout.splitlines()}
    assert names - {"PWD", "_", "SHLVL", "OLDPWD"} == {"PATH", "ONLY"}


async def test_caps_stdout_and_stderr_independently(tmp_path: Path) -> None:
    output = await run("printf 1234567890; printf 123 >&2", tmp_path, max_output_bytes_per_stream=4)
    assert (output.stdout, output.stdout_truncated) == (f"123\n{LEFT_OUT}\n0", True)
    assert (output.stderr, output.stderr_truncated) == ("123", False)
    assert (output.stdout_bytes, output.stdout_lines, output.stderr_bytes) == (10, 1, 3)


async def test_the_beginning_and_the_end_of_long_output_are_kept_and_all_of_it_is_counted(tmp_path: Path) -> None:
    output = await run("seq 1 100000", tmp_path, max_output_bytes_per_stream=600)
    head, tail = output.stdout.split(f"\n{LEFT_OUT}\n")
    assert head.startswith("1\n2\n3\n")
    assert tail.endswith("\n99999\n100000\n")
    assert (len(head), len(tail)) == (400, 200)
    assert (output.stdout_bytes, output.stdout_lines) == (588_895, 100_000)


async def test_a_cut_is_between_characters(tmp_path: Path) -> None:
    output = await run("printf 'ääääääää'", tmp_path, max_output_bytes_per_stream=8)
    assert output.stdout == f"äää\n{LEFT_OUT}\nä"
    output = await run("printf 'ääääääää'", tmp_path, max_output_bytes_per_stream=10)  # 7 from the head, 3 from the end
    assert output.stdout == f"äää\n{LEFT_OUT}\nä"


async def test_what_is_killed_in_the_background_is_said(tmp_path: Path) -> None:
    assert (await run(f"nohup {FOREVER} >/dev/null 2>&1 & echo started", tmp_path)).left_running
    assert not (await run("echo done | cat", tmp_path)).left_running
    assert not (await run("true & wait", tmp_path)).left_running
    assert not (await run(FOREVER, tmp_path, timeout=0.2)).left_running


async def test_what_is_over_the_cap_is_read_and_dropped(tmp_path: Path) -> None:
    """A full pipe must not block the command."""
    output = await run("head -c 3000000 /dev/zero; echo done >&2", tmp_path, max_output_bytes_per_stream=10)
    assert output.stdout == "\0" * 7 + f"\n{LEFT_OUT}\n" + "\0" * 3
    assert (output.stdout_bytes, output.stderr, output.status_code) == (3_000_000, "done\n", 0)


async def test_invalid_utf8_is_replaced(tmp_path: Path) -> None:
    assert (await run(r"printf 'a\377b'", tmp_path)).stdout == "a\ufffdb"


async def test_a_command_ended_by_a_signal_has_no_status(tmp_path: Path) -> None:
    output = await run("kill -9 $$", tmp_path)
    assert (output.status_code, output.timed_out, output.success) == (None, False, False)


async def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        await run("true", tmp_path / "nowhere")


async def test_many_commands_run_at_once(tmp_path: Path) -> None:
    found: dict[int, str] = {}

    async def one(n: int) -> None:
        found[n] = (await run(f"echo {n}; sleep 0.2", tmp_path)).stdout

    async with anyio.create_task_group() as group:
        for n in range(20):
            group.start_soon(one, n)
    assert found == {n: f"{n}\n" for n in range(20)}


async def test_timeout_marks_output_and_uses_timeout_exit_code(tmp_path: Path) -> None:
    output = await run("echo before; " + FOREVER, tmp_path, timeout=0.3)
    assert (output.stdout, output.status_code, output.timed_out) == ("before\n", TIMED_OUT, True)


async def test_a_timeout_kills_the_whole_group(tmp_path: Path) -> None:
    await run(f"{FOREVER} & echo $! > child; {FOREVER}", tmp_path, timeout=0.3)
    await until_gone(int((tmp_path / "child").read_text()))


async def test_cancelling_kills_the_whole_group_without_waiting_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "DRAIN_SECONDS", A_MINUTE)
    child = tmp_path / "child"
    began = 0.0
    async with anyio.create_task_group() as group:
        group.start_soon(run, f"{FOREVER} & echo $! > child; {FOREVER}", tmp_path)
        await until_written(child)
        began = time.monotonic()
        group.cancel_scope.cancel()
    assert time.monotonic() - began < A_MINUTE / 2
    await until_gone(int(child.read_text()))


async def test_a_stop_while_a_command_starts_kills_the_whole_group(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    async with anyio.create_task_group() as group:
        group.start_soon(run, f"{FOREVER} & echo $! > fifo; wait", tmp_path)
        for _ in range(10):  # until the command has been asked for
            await checkpoint()
        child = int(fifo.read_text())  # blocks the loop, so that starting the command is not over yet
        group.cancel_scope.cancel()
    await until_gone(child)


async def test_a_daemon_of_the_command_is_killed_and_its_pipe_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "DRAIN_SECONDS", A_MINUTE)
    with anyio.fail_after(A_MINUTE / 2):
        output = await run(f"{FOREVER} & echo $! > child; echo done", tmp_path)
    assert (output.stdout, output.status_code) == ("done\n", 0)
    await until_gone(int((tmp_path / "child").read_text()))


async def test_lines_are_reported_while_it_runs(tmp_path: Path) -> None:
    """The command waits for a file that `on_line` writes when it gets the first line."""
    lines: list[str] = []

    def on_line(line: str) -> None:
        lines.append(line)
        if line == "stdout: first":
            (tmp_path / "go").touch()

    command = "echo first; until [ -e go ]; do :; done; echo second >&2; printf unfinished"
    output = await LocalExecutor().run(request(command, tmp_path), on_line)
    assert lines[:2] == ["stdout: first", "stderr: second"]
    assert output.stdout == "first\nunfinished"
    assert "stdout: unfinished" in lines


async def test_a_line_that_is_redrawn_is_reported_before_it_ends(tmp_path: Path) -> None:
    lines: list[str] = []

    def on_line(line: str) -> None:
        lines.append(line)
        if line.strip().endswith("10%"):
            (tmp_path / "go").touch()

    command = "printf '10%%\\r'; until [ -e go ]; do :; done; printf '100%%\\n'"
    output = await LocalExecutor().run(request(command, tmp_path), on_line)
    assert lines == ["stdout: 10%\r", "stdout: 10%\r100%"]
    assert output.stdout == "10%\r100%\n"


@pytest.mark.parametrize("pause", [0.0, A_MINUTE])
async def test_of_long_output_the_last_line_is_reported_from_time_to_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pause: float
) -> None:
    monkeypatch.setattr(capture, "SHOW_EVERY", pause)
    lines: list[str] = []
    command = request("seq 1 50; sleep 0.1; seq 51 200000", tmp_path, max_output_bytes_per_stream=1000)
    await LocalExecutor().run(command, lines.append)
    numbers = [int(line.removeprefix("stdout: ")) for line in lines]
    assert numbers[:50] == [*range(1, 51)]
    assert numbers == sorted(numbers)
    assert len(numbers) < 2000
    assert (numbers[-1] == 200_000) is (pause == 0.0)
