"""No process of a command outlives it, whatever it does to get away."""

from __future__ import annotations

import contextlib
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import psutil
import pytest

from mentra_nb.sandbox import supervised, supervisor, unsupervised
from mentra_nb.sandbox.executor import CommandRequest, ExecOutput, LocalExecutor, run_program

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and subreapers")]

SOON = 2.0
"""Seconds in which a tree must be gone."""
AWAY = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
for step in sys.argv[1:]:
    if step == "fork" and os.fork():
        os._exit(0)
    if step == "setsid":
        os.setsid()
    if step == "print" and os.fork() == 0:
        while True:
            os.write(1, b"x" * 65536)
with open("pids", "a") as file:
    file.write(f"{os.getpid()}\\n")
time.sleep(600)
"""
WAYS = ("", "fork", "setsid", "fork setsid fork", "fork setsid fork setsid", "fork setsid fork print")


def away(folder: Path, *steps: str) -> str:
    """A command line whose processes do these steps, and then sleep; it goes on when all have written their pids."""
    (folder / "away.py").write_text(AWAY)
    python = shlex.quote(sys.executable)
    lines = [f"{python} -sS away.py {each} &" for each in steps]
    return "\n".join([*lines, f"until [ $(cat pids 2>/dev/null | wc -l) = {len(steps)} ]; do sleep 0.01; done"])


def pids(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "pids").read_text().split()]


def living(found: list[int]) -> list[int]:
    alive = []
    for pid in found:
        with contextlib.suppress(psutil.NoSuchProcess):  # it may end at any moment
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                alive.append(pid)
    return alive


async def until_gone(found: list[int], within: float = SOON) -> None:
    with anyio.fail_after(within):
        while living(found):
            await anyio.sleep(0.01)


async def until_there(folder: Path, count: int) -> list[int]:
    with anyio.fail_after(20):
        while not (folder / "pids").exists() or len(pids(folder)) < count:
            await anyio.sleep(0.01)
    return pids(folder)


@pytest.fixture
def free() -> Iterator[None]:
    """Fails if a process of this test's command is left."""
    yield
    left = [each for each in psutil.process_iter(["cmdline"]) if "away.py" in (each.info["cmdline"] or ())]
    for process in left:
        process.kill()
    assert not left


async def run(command: str, folder: Path, timeout: float = 60.0) -> ExecOutput:
    return await LocalExecutor().run(CommandRequest(command, folder, timeout, {"PATH": os.environ["PATH"]}, 1000))


@pytest.mark.usefixtures("free")
async def test_what_a_command_left_is_gone_when_it_returns(tmp_path: Path) -> None:
    output = await run(away(tmp_path, *WAYS) + "; echo done", tmp_path)
    assert living(pids(tmp_path)) == []
    assert output.status_code == 0
    assert output.left_running


@pytest.mark.slow
@pytest.mark.usefixtures("free")
async def test_a_timeout_ends_the_whole_tree(tmp_path: Path) -> None:
    waits = "; touch there; sleep 600"
    with anyio.fail_after(30):
        output = await run(away(tmp_path, *WAYS) + waits, tmp_path, timeout=1.5)
    assert output.timed_out
    assert living(await until_there(tmp_path, 1)) == []


@pytest.mark.usefixtures("free")
async def test_cancelling_ends_the_whole_tree_while_it_prints(tmp_path: Path) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(run, away(tmp_path, *WAYS) + "; yes", tmp_path)
        found = await until_there(tmp_path, len(WAYS))
        began = time.monotonic()
        group.cancel_scope.cancel()
    assert time.monotonic() - began < SOON
    assert living(found) == []


ASKS = """
import anyio, os, sys, time
from pathlib import Path
from mentra_nb.sandbox.executor import CommandRequest, LocalExecutor

def fork(line):  # a child that keeps all sockets open, as of `multiprocessing`
    if not Path("holder").exists():
        Path("holder").write_text("")
        if (pid := os.fork()):
            Path("holder").write_text(str(pid))
        else:
            time.sleep(60)
            os._exit(0)

anyio.run(LocalExecutor().run, CommandRequest(sys.argv[1], Path(), 600.0, {"PATH": os.environ["PATH"]}), fork)
"""


@pytest.mark.fault
@pytest.mark.usefixtures("free")
@pytest.mark.parametrize(("before", "within"), [("true", SOON), ("kill -STOP $PPID", SOON + supervisor.KILL_SECONDS)])
async def test_the_whole_tree_is_gone_after_the_process_that_asked_was_killed(
    tmp_path: Path, before: str, within: float
) -> None:
    """A supervisor that was stopped does nothing; its parent then kills the tree."""
    goes_on = f"echo there; until [ -s holder ]; do sleep 0.01; done; {before}; touch ready; yes"
    asker = subprocess.Popen([sys.executable, "-c", ASKS, f"{away(tmp_path, *WAYS)}; {goes_on}"], cwd=tmp_path)
    holder = 0
    try:
        with anyio.fail_after(20):
            while not (tmp_path / "ready").exists():
                await anyio.sleep(0.01)
        holder = int((tmp_path / "holder").read_text())
        below = {process.pid for process in psutil.Process(asker.pid).children(recursive=True)} - {holder}
        assert len(below) >= 3  # the parent of the supervisors, the supervisor and the shell
        asker.kill()
        asker.wait()
        await until_gone([*pids(tmp_path), *below], within)
        assert living([holder])
    finally:
        asker.kill()
        asker.wait()
        if holder:
            os.kill(holder, signal.SIGKILL)


@pytest.mark.fault
async def test_whenever_the_process_that_asks_is_killed_nothing_of_it_is_left(tmp_path: Path) -> None:
    """Also while the supervisors are being started, or a command is. `MENTRA_FAULT_KILLS` makes it more often."""
    program = ASKS.replace("anyio.run", "print('asks', flush=True)\nanyio.run")
    for n in range(int(os.environ.get("MENTRA_FAULT_KILLS", "4"))):
        command = f"setsid sleep 600 & exec sleep 600 # {tmp_path}"
        asker = subprocess.Popen([sys.executable, "-c", program, command], cwd=tmp_path, stdout=subprocess.PIPE)
        assert asker.stdout is not None
        asker.stdout.readline()
        await anyio.sleep(n * 0.037 % 0.15)
        asker.kill()
        asker.wait()
        asker.stdout.close()
        with anyio.fail_after(SOON):
            while left_of(asker.pid, tmp_path):
                await anyio.sleep(0.01)


def left_of(asker: int, folder: Path) -> list[str]:
    """The processes that work in a folder, and the supervisors of a process that asked."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if process.cwd() == str(folder) or (words[-1:] == [str(asker)] and supervisor.__file__ in words):
                found.append(" ".join(words))
    return found


@pytest.mark.usefixtures("free")
async def test_a_command_that_kills_its_supervisor_is_killed_all_the_same(tmp_path: Path) -> None:
    with anyio.fail_after(20):
        output = await run(away(tmp_path, *WAYS) + "; kill -9 $PPID; sleep 600", tmp_path)
    assert output.status_code is None
    await until_gone(pids(tmp_path))
    assert (await run("echo again", tmp_path)).stdout == "again\n"


@pytest.mark.slow
@pytest.mark.usefixtures("free")
async def test_a_command_that_stops_its_supervisor_is_killed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervised, "ANSWER_SECONDS", 0.2)
    with anyio.fail_after(20):
        output = await run(away(tmp_path, *WAYS) + "; kill -STOP $PPID; sleep 600", tmp_path, timeout=1.5)
    assert output.timed_out
    await until_gone(await until_there(tmp_path, 1))


async def test_a_command_that_kills_the_parent_of_the_supervisors_ends_and_the_next_one_runs(tmp_path: Path) -> None:
    kills = "kill -9 $(awk '{print $4}' /proc/$PPID/stat); echo done"
    assert (await run(kills, tmp_path)).stdout == "done\n"
    assert (await run("echo again", tmp_path)).stdout == "again\n"


@pytest.mark.slow
async def test_a_parent_of_the_supervisors_that_was_stopped_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervised, "START_SECONDS", 1.0)
    await run("kill -STOP $(awk '{print $4}' /proc/$PPID/stat)", tmp_path)
    assert (await run("echo the one that waited", tmp_path)).success
    assert (await run("echo again", tmp_path)).stdout == "again\n"


@pytest.mark.slow
async def test_processes_that_go_on_forking_are_caught(tmp_path: Path) -> None:
    """Each forks the next and ends, so that none is there for long."""
    comet = "import os\nopen('pids', 'w').write('1')\nwhile not os.fork(): pass"
    (tmp_path / "comet.py").write_text(comet)
    command = f"{shlex.quote(sys.executable)} -sS comet.py & until [ -s pids ]; do sleep 0.01; done"
    with anyio.fail_after(20):
        assert (await run(command, tmp_path)).left_running
    assert not [p for p in psutil.process_iter(["cmdline"]) if "comet.py" in (p.info["cmdline"] or ())]


@pytest.mark.slow
async def test_a_gibibyte_of_output_takes_little_memory(tmp_path: Path) -> None:
    await run("true", tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with anyio.fail_after(60):
        output = await run("head -c 1073741824 /dev/zero", tmp_path)
    assert output.stdout_bytes == 1 << 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10  # kibibytes


async def test_supervisors_have_none_of_the_variables_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-commands")
    supervised._end_door()
    output = await run("cat /proc/$PPID/environ; cat /proc/$(awk '{print $4}' /proc/$PPID/stat)/environ", tmp_path)
    assert output.success
    assert "sk-not-for-commands" not in output.stdout


async def test_the_child_of_a_fork_has_supervisors_of_its_own(tmp_path: Path) -> None:
    await run("true", tmp_path)
    door = supervised._opened
    pid = os.fork()
    if not pid:
        os._exit(0 if supervised._opened is None else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert supervised._opened is door
    assert (await run("echo on", tmp_path)).stdout == "on\n"


async def test_a_program_without_a_shell_runs_with_the_limits_of_a_request(tmp_path: Path) -> None:
    request = CommandRequest("shown only", tmp_path, 5.0, {}, 100)
    assert (await run_program(["/bin/echo", "$HOME", "*"], request)).stdout == "$HOME *\n"
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        await run_program(["/no-such-program"], request)


async def test_a_transcript_has_all_that_was_written_up_to_its_limit(tmp_path: Path) -> None:
    file = tmp_path / "transcript"
    request = CommandRequest("seq 1 3; seq 4 6 >&2", tmp_path, 5.0, {"PATH": os.environ["PATH"]}, 4, file)
    await LocalExecutor().run(request)
    assert sorted(file.read_text().split()) == ["1", "2", "3", "4", "5", "6"]
    assert file.stat().st_mode & 0o777 == 0o600
    small = CommandRequest("yes | head -c 5000", tmp_path, 5.0, {"PATH": os.environ["PATH"]}, 4, file, 1000)
    assert (await LocalExecutor().run(small)).stdout_bytes == 5000
    assert file.stat().st_size == 1000


async def test_without_supervisors_a_tree_is_killed_from_its_root(tmp_path: Path) -> None:
    """As on Windows."""
    process = await unsupervised.start(["/bin/sh", "-c", "sleep 600 & echo $! > pids; sleep 600; true"], tmp_path, {})
    [child] = await until_there(tmp_path, 1)
    assert (await process.kill()).status == -signal.SIGKILL
    await until_gone([child])
    assert (await process.kill()).status == -signal.SIGKILL


def test_both_ways_to_find_children_agree() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        try:
            assert sorted(supervisor.all_children()[os.getpid()]) == sorted(supervisor.children_of(os.getpid()))
            assert child.pid in supervisor.descendants()
            assert child.pid not in supervisor.descendants(spared={child.pid})
        finally:
            child.kill()
