"""Commands behind the fence: what they see, what is said of their effect, and that nothing of it lasts."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import anyio
import psutil
import pytest
from kits.fences import ENV, changed, fenced, needs_fence, request
from kits.trees import tree_in

from mentra_nb.effect.types import Want
from mentra_nb.sandbox import fenced as fenced_module
from mentra_nb.sandbox.executor import TIMED_OUT
from mentra_nb.sandbox.fenced import WITHOUT_CACHES, Fence, FenceFailed, workspace_problem
from mentra_nb.sandbox.limits import CGROUPS, FenceLimits
from mentra_nb.sandbox.waiting import FencedRun

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    needs_fence()
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("MENTRA_HOME", str(home))
    return home


def test_a_command_without_an_effect_has_its_output_and_nothing_else(tmp_path: Path, own_home: Path) -> None:
    with fenced("echo out; echo err >&2; touch /tmp/x; exit 3", tmp_path) as run:
        assert (run.output.stdout, run.output.stderr, run.output.status_code) == ("out\n", "err\n", 3)
        assert run.effect.changes == ()
        assert not run.output.left_running
    assert list((own_home / "effects" / "waiting").iterdir()) == []


def test_every_kind_of_change_is_told_and_none_is_made(tmp_path: Path) -> None:
    for name in ("text", "gone", "mode", "becomes_folder"):
        (tmp_path / name).write_text(name)
    (tmp_path / "folder" / "in").mkdir(parents=True)
    (tmp_path / "folder" / "in" / "file").write_text("deep")
    (tmp_path / "link").symlink_to("text")
    before = tree_in(tmp_path)
    command = """
        echo more >>text; rm gone; chmod 600 mode; rm becomes_folder; mkdir becomes_folder; echo 1 >becomes_folder/a
        rm -r folder; echo file >folder; ln -sf mode link; ln -s nowhere new_link; touch text; chmod 711 .
    """
    with fenced(command, tmp_path) as run:
        assert tree_in(tmp_path) == before
        assert changed(run, tmp_path) == {
            **{".": "changed", "text": "changed", "gone": "deleted", "mode": "changed", "becomes_folder": "changed"},
            **{"becomes_folder/a": "created", "folder": "changed", "folder/in": "deleted", "link": "changed"},
            **{"folder/in/file": "deleted", "new_link": "created"},
        }
        text = next(change for change in run.effect.changes if change.path.endswith("/text"))
        assert text.after is not None
        with run.content(text.after.digest) as content:
            assert (text.after.size, content.read()) == (9, b"textmore\n")


def test_a_folder_made_anew_hides_what_was_in_it(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(mode=0o755)
    (tmp_path / "folder" / "old").write_text("old")
    with fenced("umask 022; rm -r folder; mkdir folder; echo 1 >folder/new", tmp_path) as run:
        assert changed(run, tmp_path) == {"folder/old": "deleted", "folder/new": "created"}


def test_files_nobody_may_read_are_told_with_their_content(tmp_path: Path) -> None:
    with fenced("umask 777; mkdir d; chmod 700 d; echo 1 >d/f; chmod 0 d", tmp_path) as run:
        assert {change.path: change.after and oct(change.after.mode) for change in run.effect.changes} == {
            f"{tmp_path}/d": "0o0",
            f"{tmp_path}/d/f": "0o0",
        }


def test_secret_files_and_our_own_folder_cannot_be_read_or_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MENTRA_HOME", str(tmp_path / "ours"))
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "state.sqlite").write_text("PRIVATE")
    (tmp_path / "deep" / ".ssh").mkdir(parents=True)
    (tmp_path / "deep" / ".ssh" / "config").write_text("PRIVATE")
    (tmp_path / ".env").write_text("PRIVATE")
    (tmp_path / ".env.example").write_text("KEY=")
    command = "cat .env.example; cat .env ours/* deep/.ssh/*; rm -rf .env ours deep"
    with fenced(command, tmp_path) as run:
        assert run.output.stdout == "KEY="
        assert changed(run, tmp_path) == {}
        assert Want("opening", ".env") in run.effect.wanted


def test_our_store_and_record_elsewhere_are_hidden_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MENTRA_STATE", str(tmp_path / "store"))
    monkeypatch.setenv("MENTRA_RECORD", str(tmp_path / "record"))
    (tmp_path / "record").mkdir()
    for name in ("store", "store-wal", "record/events"):
        (tmp_path / name).write_text("PRIVATE")
    with fenced("cat store store-wal record/*; rm -rf store* record", tmp_path) as run:
        assert run.output.stdout == ""
        assert changed(run, tmp_path) == {}


def test_what_a_link_with_a_secret_name_leads_to_is_hidden(tmp_path: Path) -> None:
    (tmp_path / "shared" / "keys").mkdir(parents=True)
    for name in ("plain.txt", "keys/one", "keys/.env", "open.txt"):
        (tmp_path / "shared" / name).write_text(name)
    for name, target in {".env": "shared/plain.txt", ".aws": "shared/keys", "deep.pem": "nowhere", ".ssh": "/"}.items():
        (tmp_path / name).symlink_to(target)
    with fenced("cat .env .aws/one shared/*.txt shared/keys/one", tmp_path) as run:
        assert run.output.stdout == "open.txt"


def test_a_secret_file_is_hidden_under_all_its_names(tmp_path: Path) -> None:
    (tmp_path / "deep" / ".ssh").mkdir(parents=True)
    for name, other in {"deep/.env": "notes.txt", "deep/.ssh/id": "deep/plain"}.items():
        (tmp_path / name).write_text("PRIVATE")
        (tmp_path / other).hardlink_to(tmp_path / name)
    (tmp_path / "open.txt").write_text("open")
    with fenced("cat open.txt notes.txt deep/plain", tmp_path) as run:
        assert run.output.stdout == "open"


def test_a_secret_file_made_between_two_commands_is_hidden(tmp_path: Path) -> None:
    fence = Fence()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with fenced("cat */.env", tmp_path, fence) as run:
            assert run.output.stdout == ""
        (tmp_path / name / ".env").write_text("PRIVATE")
    with fenced("cat */.env", tmp_path, fence) as run:
        assert run.output.stdout == ""


def test_the_rest_of_the_machine_is_read_only_or_not_there(tmp_path: Path) -> None:
    (tmp_path.parent / "beside").write_text("PRIVATE")
    command = f"for path in /usr ~ /etc ''; do echo 1 >$path/x; done; ls -A {tmp_path.parent}; ls /home; cat ~/.bashrc"
    with fenced(command, tmp_path) as run:
        assert run.output.stdout.split() == [tmp_path.name]
        assert run.output.stderr.count("Read-only file system") == 4
        assert ("writing", "/usr/x") in {(want.kind, want.name) for want in run.effect.wanted}


@pytest.mark.parametrize(
    ("address", "where"),
    [
        ("203.0.113.1", "another machine"),
        ("2001:db8::1", "another machine"),
        ("127.0.0.1", "a service of this machine"),
    ],
)
def test_reaching_for_the_network_fails_and_is_told(tmp_path: Path, address: str, where: str) -> None:
    with fenced(f"python3 -c 'import socket; socket.create_connection((\"{address}\", 9))'", tmp_path) as run:
        assert not run.output.success
        assert run.effect.wanted == (Want("network", where),)


def test_sockets_of_the_workspace_are_out_of_reach(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as abstract:
        os.chdir(tmp_path)
        server.bind("door")
        server.listen()
        abstract.bind("\0mentra-test-door")
        abstract.listen()
        connect = 'import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1].replace("@", chr(0)))'
        command = f"for door in door @mentra-test-door; do python3 -c '{connect}' $door || echo no; done"
        with fenced(command, tmp_path) as run:
            assert run.output.stdout == "no\nno\n"


def test_what_is_left_in_the_background_dies_with_the_command(tmp_path: Path) -> None:
    with fenced("(setsid sleep 3210 &) ; sleep 3210 & echo done", tmp_path) as run:
        assert run.output.stdout == "done\n"
        assert run.output.left_running
    assert not [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["sleep", "3210"]]


def test_after_its_time_a_command_is_gone_and_its_effect_is_no_longer_whole(tmp_path: Path) -> None:
    with fenced("echo 1 >new; echo said; sleep 3211", tmp_path, timeout=1.0) as run:
        assert (run.output.stdout, run.output.status_code) == ("said\n", TIMED_OUT)
        assert run.problem is not None
        assert run.effect.changes == ()
    assert not [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["sleep", "3211"]]


def test_a_stopped_command_leaves_no_trace(tmp_path: Path, own_home: Path) -> None:
    async def stopped() -> None:
        with anyio.move_on_after(10) as scope:
            await Fence().run(
                request("echo 1 >new; echo said; sleep 3212", tmp_path), tmp_path, lambda line: scope.cancel()
            )

    anyio.run(stopped)
    assert list(tmp_path.iterdir()) == []
    assert list((own_home / "effects" / "waiting").iterdir()) == []
    assert not [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["sleep", "3212"]]


def test_what_may_be_written_is_limited_over_all_files(tmp_path: Path) -> None:
    fence = Fence(FenceLimits(written=8 << 20))
    command = "for n in 1 2 3 4 5 6; do head -c 3000000 /dev/zero >/tmp/$n || exit 7; done"
    with fenced(command, tmp_path, fence) as run:
        assert run.output.status_code == 7
        assert Want("space", "more than may be written") in run.effect.wanted


def test_processes_are_limited(tmp_path: Path) -> None:
    fence = Fence(FenceLimits(processes=40))
    count = """
import os, time
n = 0
try:
    while n < 500:
        n += 1
        os.fork() or time.sleep(60)
finally:
    print(n)
"""
    with fenced(f"python3 -c '{count}'", tmp_path, fence) as run:
        assert "BlockingIOError" in run.output.stderr
        assert int(run.output.stdout) < 50


def test_memory_is_limited(tmp_path: Path) -> None:
    fence = Fence(FenceLimits(memory=200 << 20))
    with fenced("python3 -c 'x = bytearray(400 << 20); print(len(x))'", tmp_path, fence) as run:
        assert run.output.stdout == ""
        assert "MemoryError" in run.output.stderr


USED_UP = "it used up the memory it may have, {} MiB, and was killed, so its effect is not whole"
BY_THE_KERNEL = {
    "files": "head -c 150000000 /dev/zero >/tmp/big; echo said",
    "background": "(head -c 150000000 /dev/zero >/dev/shm/big) & wait; echo said",
}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has control groups")
@pytest.mark.parametrize("line", BY_THE_KERNEL.values(), ids=BY_THE_KERNEL)
def test_a_command_of_root_that_uses_up_its_memory_is_said_to_have_done_so(tmp_path: Path, line: str) -> None:
    with fenced(f"echo 1 >new; {line}", tmp_path, Fence(FenceLimits(memory=60 << 20))) as run:
        assert (run.output.over_memory, run.effect.changes) == (True, ())
        assert run.problem == USED_UP.format(60)
    with fenced("echo 1 >new", tmp_path) as run:  # has its own memory, whatever the one before it used
        assert (run.problem, changed(run, tmp_path)) == (None, {"new": "created"})
    assert not [each for where in ("", "*/") for each in CGROUPS.glob(f"{where}mentra-{os.getpid()}-*")]


CHILDREN = """
import os, sys
size, of_each = int(sys.argv[1]) << 20, int(sys.argv[2]) << 20
shared = bytearray(b"x") * size
ready, done = os.pipe(), os.pipe()
for _ in range(8):
    if os.fork() == 0:
        own = bytearray(b"x") * of_each
        os.write(ready[1], b"x")
        os.close(done[1])
        os.read(done[0], 1)
        os._exit(0)
print(sum(len(os.read(ready[0], 1)) for _ in range(8)), flush=True)
if of_each:
    os.read(done[0], 1)  # for ever
"""


@pytest.mark.parametrize(("shared", "of_each"), [(0, 60), (200, 0)])
def test_memory_is_limited_over_all_processes_and_shared_memory_counts_once(
    tmp_path: Path, shared: int, of_each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        fenced_module, "control_groups", lambda limits: contextlib.nullcontext([])
    )  # as for all users but root
    (tmp_path / "children.py").write_text(CHILDREN)
    fence = Fence(FenceLimits(memory=300 << 20))
    line = f"echo 1 >new; python3 children.py {shared} {of_each}"
    with fenced(line, tmp_path, fence) as run:
        assert run.output.over_memory == bool(of_each)
        if of_each:
            assert (
                run.problem == "it used up the memory it may have, 300 MiB, and was killed, so its effect is not whole"
            )
            assert (run.output.success, run.effect.changes) == (False, ())
            assert run.output.ending == "killed, as it used more memory than it may"
        else:
            assert (run.problem, run.output.stdout, changed(run, tmp_path)) == (None, "8\n", {"new": "created"})


def test_too_many_changes_are_no_effect_that_can_be_kept(tmp_path: Path) -> None:
    with fenced("touch a b c d", tmp_path, Fence(FenceLimits(changed=3))) as run:
        assert run.effect.changes == ()
        assert run.problem == "it changes more than 3 files"


def test_a_pipe_is_not_kept_and_said_so(tmp_path: Path) -> None:
    with fenced("mkfifo pipe; echo 1 >file", tmp_path) as run:
        assert changed(run, tmp_path) == {"file": "created"}
        assert run.effect.wanted == (Want("special file", f"{tmp_path}/pipe"),)


def test_a_command_whose_changes_cannot_be_written_down_has_not_changed_nothing(tmp_path: Path, own_home: Path) -> None:
    (tmp_path / "flag").write_text("wait")

    async def run_without_room() -> FencedRun:
        def on_line(line: str) -> None:
            [folder] = (own_home / "effects" / "waiting").iterdir()
            (folder / "difference.json").symlink_to(folder / "nowhere" / "file")
            (folder / "errors").symlink_to("/dev/null")
            (tmp_path / "flag").write_text("go")

        wait = 'echo 1 >new; echo ready; while ! [ "$(cat flag)" = go ]; do sleep 0.01; done'
        run = await Fence().run(request(wait, tmp_path), tmp_path, on_line)
        run.close()
        return run

    run = anyio.run(run_without_room)
    assert run.problem == "its changes cannot be read: there may be no room on the disk"
    assert run.effect.changes == ()


@pytest.mark.parametrize("other", ["text.write_text('theirs')", "text.unlink()"])
def test_what_something_else_changes_meanwhile_is_told(tmp_path: Path, other: str) -> None:
    text = tmp_path / "text"
    text.write_text("ours")
    flag = tmp_path / "flag"
    flag.write_text("wait")
    seen: list[str] = []

    async def run_beside_another() -> tuple[str, ...]:
        def on_line(line: str) -> None:
            if not seen:
                seen.append(line)
                eval(other, {"text": text})
                flag.write_text("go")

        wait = 'echo more >>text; echo ready; while ! [ "$(cat flag)" = go ]; do sleep 0.01; done'
        run = await Fence().run(request(wait, tmp_path), tmp_path, on_line)
        run.close()
        return run.moved

    assert anyio.run(run_beside_another) == ("text",)


def test_what_was_written_just_before_is_not_taken_for_a_change_meanwhile(tmp_path: Path) -> None:
    for _ in range(3):
        (tmp_path / "text").write_text(str(time.time()))
        with fenced("echo more >>text", tmp_path) as run:
            assert run.moved == ()


def test_the_environment_is_what_was_asked_for_and_no_file_of_ours_is_open(tmp_path: Path) -> None:
    mask = subprocess.run(["sh", "-c", "umask"], capture_output=True, text=True, check=True)
    with fenced("env | cut -d= -f1 | sort | tr '\\n' ' '; ls /proc/self/fd | tr '\\n' ' '; umask", tmp_path) as run:
        names = " ".join(sorted([*WITHOUT_CACHES, "HOME", "PATH", "PWD", "TMPDIR", "XDG_CACHE_HOME"]))
        assert run.output.stdout == f"{names} 0 1 2 3 {mask.stdout}"


@pytest.mark.parametrize(
    ("workspace", "why"),
    [(Path("/"), "home folder"), (Path.home(), "home folder"), (Path.home().parent, "home folder")],
)
def test_the_home_folder_is_no_workspace(workspace: Path, why: str) -> None:
    assert why in (workspace_problem(workspace) or "")


def test_our_own_folder_is_no_workspace(own_home: Path) -> None:
    inside = own_home / "inside"
    inside.mkdir()
    assert "mentra's own files" in (workspace_problem(inside) or "")
    with pytest.raises(FenceFailed), fenced("true", inside):
        pass
    assert ENV["HOME"] == str(Path.home())


def test_what_waited_in_a_process_that_is_gone_is_deleted(tmp_path: Path, own_home: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    waiting = own_home / "effects" / "waiting"
    for name in (f"run-1.{gone.pid}", f"run-2.{os.getpid()}"):
        (waiting / name / "content").mkdir(parents=True)
    with fenced("true", tmp_path):
        pass
    assert [path.name for path in waiting.iterdir()] == [f"run-2.{os.getpid()}"]


KILLED = """
import sys
import anyio
from pathlib import Path
from kits.fences import request
from mentra_nb.sandbox.fenced import Fence
workspace = Path(sys.argv[1])
command = "echo 1 >new; setsid sleep 3213 & echo ready; sleep 3213"
anyio.run(Fence().run, request(command, workspace), workspace, lambda line: print(line, flush=True))
"""


@pytest.mark.fault
def test_after_its_process_is_killed_nothing_is_left_of_a_command(tmp_path: Path, own_home: Path) -> None:
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == b"stdout: ready\n"
        sleeping: list[psutil.Process] = []
        while len(sleeping) < 2 and killed.poll() is None:  # both are being started
            sleeping = [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["sleep", "3213"]]
        killed.kill()
    _, alive = psutil.wait_procs(sleeping, timeout=2)
    assert (len(sleeping), alive) == (2, [])
    assert list(tmp_path.iterdir()) == []
    assert len(list((own_home / "effects" / "waiting").iterdir())) == 1
    with fenced("true", tmp_path):
        pass
    assert list((own_home / "effects" / "waiting").iterdir()) == []


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ("cat: plain.txt: Permission denied", "plain.txt"),
        ("cat: 'a b': Permission denied", "a b"),
        ("tail: cannot open 'door' for reading: Permission denied", "door"),
        ('open("plain.txt"): Permission denied', "plain.txt"),
        ("PermissionError: [Errno 13] Permission denied: 'a b'", "a b"),
        ("sh: 1: cannot create out.txt: Permission denied", "out.txt"),
    ],
)
def test_what_a_command_could_not_open_is_named_as_it_said(tmp_path: Path, said: str, named: str) -> None:
    (tmp_path / "said").write_text(said)
    with fenced("cat said >&2; exit 1", tmp_path) as run:
        assert run.effect.wanted == (Want("opening", named),)
