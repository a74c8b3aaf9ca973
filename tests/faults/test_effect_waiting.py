"""A process is killed while what a command did in the sandbox waits: another process answers, or it goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from kits.core import Bench, bench
from kits.fences import needs_fence
from kits.trees import Tree, tree_in

from mentra_nb.authorization import PermissionDecision, PermissionQuestion
from mentra_nb.effect.journal import Journal
from mentra_nb.errors import OperationDenied
from mentra_nb.event import screen as shown
from mentra_nb.permission.policy import RuntimePolicy
from mentra_nb.providers.scripted import text, tool_calls
from mentra_nb.runtime.session import Session
from mentra_nb.sandbox import waiting as waiting_module
from mentra_nb.sandbox.waiting import remove_left
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.tools.builtin.shell import ShellTool

pytestmark = [pytest.mark.fault, pytest.mark.anyio, pytest.mark.skipif(sys.platform != "linux", reason="needs a fence")]

COMMAND = "head -c 9 /dev/urandom | base64 >new; rm old; cat new"
"""It does something else whenever it runs."""
POLICY = RuntimePolicy(allow_shell_commands=True, allowed_env_vars=("PATH",))


@asynccontextmanager
async def opened(folder: Path, *turns: Any) -> AsyncIterator[Bench]:
    options = {"tools": [ShellTool()], "working_directory": folder / "work", "policy": POLICY, "authorizer": None}
    async with bench(*turns, store=SqliteStore(folder / "store"), **options) as table:
        yield table


def on_question(session: Session, act: Any) -> None:
    def hear(event: shown.SessionEvent) -> None:
        if isinstance(event, shown.QuestionAsked):
            act(event.request_id)

    session.permissions.sandbox = "auto"
    session.subscribe(hear)


async def ask_and_wait(folder: Path, timeout: float) -> None:
    """Ask for the command and wait for an answer to what it did; what the question says is printed."""
    async with opened(folder, tool_calls([("shell", {"command": COMMAND})])) as table:
        session = await table.session()
        session.permissions.ask_timeout = timeout

        def tell(_: str) -> None:
            print(session.permissions.open_questions()[0].model_dump_json(), flush=True)

        on_question(session, tell)
        await session.append_turn("go")


def asked_and_killed(folder: Path, timeout: float = 600.0) -> PermissionQuestion:
    (folder / "work").mkdir(exist_ok=True)
    (folder / "work" / "old").write_text("old\n")
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nimport anyio, test_effect_waiting as t\n"
    )
    program += f"from pathlib import Path\nanyio.run(t.ask_and_wait, Path({str(folder)!r}), {timeout})"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        question = PermissionQuestion.model_validate_json(killed.stdout.readline())
        killed.kill()
    return question


def waiting(home: Path) -> list[Path]:
    return list((home / "effects" / "waiting").iterdir())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    needs_fence()
    monkeypatch.setenv("MENTRA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def promised(question: PermissionQuestion) -> Tree:
    """Return the tree that a question says there would be."""
    assert question.effect is not None
    new, old = question.effect.files
    assert (new.kind, old.kind) == ("created", "deleted")
    return {"new": ("file", 0o666 & ~umask(), f"{new.diff[1].removeprefix('+')}\n".encode())}


def umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("when", ["asked again", "answered before"])
@pytest.mark.parametrize("keep", [True, False])
async def test_what_waited_is_answered_in_the_next_process(tmp_path: Path, home: Path, when: str, keep: bool) -> None:
    question = await anyio.to_thread.run_sync(asked_and_killed, tmp_path)
    before, again = tree_in(tmp_path / "work"), list[PermissionQuestion]()
    answer = PermissionDecision(allow=keep)
    async with opened(tmp_path, text("done")) as table:
        session = await table.runtime.resume_session("talk")
        assert len(waiting(home)) == 1

        def decide(request_id: str) -> None:
            again.extend(session.permissions.open_questions())
            session.resolve_permission(request_id, answer)

        on_question(session, decide)
        if when == "answered before":
            await session.answer(question.request_id, answer)
        await session.resume_turn()
        result = session.history()[-2].tool_results()[0]
    assert [each.effect for each in again] == ([question.effect] if when == "asked again" else [])
    assert tree_in(tmp_path / "work") == (promised(question) if keep else before)
    assert waiting(home) == []
    assert len(Journal().turns()) == keep
    if keep:
        assert result.content == promised(question)["new"][2].decode().strip()


async def test_what_waited_is_not_taken_over_when_its_files_have_changed_since(tmp_path: Path, home: Path) -> None:
    question = await anyio.to_thread.run_sync(asked_and_killed, tmp_path)
    (tmp_path / "work" / "old").write_text("changed\n")
    again = list[PermissionQuestion]()
    async with opened(tmp_path, text("done")) as table:
        session = await table.runtime.resume_session("talk")

        def decide(request_id: str) -> None:
            again.extend(session.permissions.open_questions())
            session.resolve_permission(request_id, PermissionDecision(allow=True))

        on_question(session, decide)
        await session.resume_turn()
    assert again[0].effect != question.effect
    assert tree_in(tmp_path / "work") == promised(again[0])
    assert waiting(home) == []


async def test_what_waited_too_long_is_refused_and_deleted_by_the_next_process(tmp_path: Path, home: Path) -> None:
    question = await anyio.to_thread.run_sync(asked_and_killed, tmp_path, 1.0)
    assert len(waiting(home)) == 1
    await anyio.sleep(question.deadline - time.time() + 0.01)
    async with opened(tmp_path, text("done")) as table:
        session = await table.runtime.resume_session("talk")
        assert waiting(home) == []
        with pytest.raises(OperationDenied, match="that question is closed: it was answered, timed out"):
            await session.answer(question.request_id, PermissionDecision(allow=True))
        session.permissions.can_ask = lambda: False
        on_question(session, print)
        await session.resume_turn()
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["old"]


def test_what_another_process_left_is_deleted_once_nobody_may_keep_it(home: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    top = home / "effects" / "waiting"
    for name, deadline in {"held": time.time() + 60, "overdue": time.time() - 1, "broken": None}.items():
        for pid in (gone.pid, os.getpid(), os.getppid()):
            (top / f"{name}.{pid}").mkdir(parents=True)
            said = json.dumps({"deadline": deadline}) if deadline is not None else "{"
            (top / f"{name}.{pid}" / "waiting.json").write_text(said)
    remove_left(top)
    living = {f"{name}.{pid}" for name in ("held", "overdue", "broken") for pid in (os.getpid(), os.getppid())}
    assert {path.name for path in top.iterdir()} == {f"held.{gone.pid}", *living}


def test_what_is_left_under_the_id_of_a_living_process_that_began_later_is_deleted(home: Path) -> None:
    top = home / "effects" / "waiting"
    (top / f"run-1.{os.getpid()}").mkdir(parents=True)
    remove_left(top)
    assert len(waiting(home)) == 1
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(waiting_module, "CLOCK_SLACK", -1e9)  # as if the folder were from long before
        remove_left(top)
    assert waiting(home) == []
