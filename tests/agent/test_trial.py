"""Commands that are tried in the sandbox and decided about by what they did there."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from kits.core import Bench, Judge, bench
from kits.fences import needs_fence
from kits.trees import tree_in

from mentra_nb.agent.limits import CancellationToken, RunOptions
from mentra_nb.authorization import PermissionDecision, PermissionQuestion, ToolAuthorizationDecision
from mentra_nb.content import ToolResult
from mentra_nb.effect.journal import Journal
from mentra_nb.effect.undo import undo
from mentra_nb.errors import Cancelled, OperationDenied
from mentra_nb.event import screen as shown
from mentra_nb.event import types as e
from mentra_nb.event.effects import EffectMade
from mentra_nb.permission.binding import effective_hash
from mentra_nb.permission.policy import RuntimePolicy
from mentra_nb.permission.proposals import proposed
from mentra_nb.providers.scripted import text, tool_calls
from mentra_nb.runtime.session import Session
from mentra_nb.sandbox import fenced
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.tools.builtin.shell import ShellTool

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

KEEP, DISCARD = PermissionDecision(allow=True), PermissionDecision(allow=False, reason="not now")
POLICY = RuntimePolicy(allow_shell_commands=True, allowed_env_vars=("PATH",))
Answer = PermissionDecision | Callable[[PermissionQuestion], PermissionDecision]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    needs_fence()
    monkeypatch.setenv("MENTRA_HOME", str(tmp_path / "home"))
    (tmp_path / "workspace").mkdir()
    return tmp_path / "workspace"


@asynccontextmanager
async def tried(workspace: Path, answer: Answer | None = None, **options: Any):  # type: ignore[no-untyped-def]
    """A session with the sandbox on, and the questions it asks, each answered at once; `None`: nobody is there."""
    chosen = {"policy": POLICY, "authorizer": None} | options
    async with bench(tools=[ShellTool()], working_directory=workspace, **chosen) as table:
        session, asked = await table.session(), []
        session.permissions.sandbox = "auto"
        session.permissions.can_ask = lambda: answer is not None

        def hear(event: shown.SessionEvent) -> None:
            if isinstance(event, shown.QuestionAsked) and answer is not None:
                [question] = [q for q in session.permissions.open_questions() if q.request_id == event.request_id]
                asked.append(question)
                session.resolve_permission(
                    event.request_id, answer if isinstance(answer, PermissionDecision) else answer(question)
                )

        session.subscribe(hear)
        yield table, session, asked


async def shell(table: Bench, session: Session, command: str) -> ToolResult:
    table.provider.push(tool_calls([("shell", {"command": command})]), text("ok"))
    await session.append_turn("go")
    return session.history()[-2].tool_results()[0]


def decided(table: Bench) -> list[tuple[str, str | None]]:
    return [(str(d.outcome), d.decided_by) for d in table.recorder.of(e.ToolAuthorizationFinished)]


def waiting(workspace: Path) -> list[Path]:
    return list((workspace.parent / "home" / "effects" / "waiting").iterdir())


async def test_what_changes_nothing_needs_no_question(workspace: Path) -> None:
    async with tried(workspace, DISCARD) as (table, session, asked):
        result = await shell(table, session, "echo hello; echo 1 >/tmp/x")
    assert (result.content, result.is_error, asked) == ("hello", False, [])
    assert decided(table) == [("allow", "sandbox")]
    assert waiting(workspace) == []
    [finished] = table.recorder.of(e.ToolExecutionFinished)
    assert finished.duration_ms > 20, "the time in the sandbox counts"


async def test_a_failure_is_the_result_as_ever(workspace: Path) -> None:
    async with tried(workspace, DISCARD) as (table, session, asked):
        result = await shell(table, session, "echo wrong >&2; exit 3")
    assert (result.content, result.is_error, asked) == ("wrong\n[exit status 3]", True, [])
    assert decided(table) == [("allow", "sandbox")]


async def test_a_change_is_asked_about_with_its_diff_and_discarded_without_a_trace(workspace: Path) -> None:
    (workspace / "text").write_text("one\ntwo\n")
    before = tree_in(workspace)
    async with tried(workspace, DISCARD) as (table, session, asked):
        result = await shell(table, session, "echo three >>text; echo new >file; chmod 755 file")
    [question] = asked
    assert question.effect is not None
    first, second = question.effect.files
    assert (first.path, first.kind, first.about, first.diff) == (
        str(workspace / "file"),
        "created",
        "file, 4 bytes, mode 755",
        ("@@ line 1 @@", "+new"),
    )
    assert (second.kind, second.about, second.added, second.removed) == ("changed", "file, 8 → 14 bytes", 1, 0)
    [recorded] = table.recorder.of(EffectMade)
    assert (recorded.outcome, recorded.tool_call_id, recorded.agent_name) == ("discarded", "tool-1", "talk")
    assert [(file.path, file.change) for file in recorded.files] == [(first.path, "created"), (second.path, "changed")]
    assert result.is_error
    assert result.content == "Tool execution denied: what it did was discarded; not now"
    assert decided(table) == [("deny", "user")]
    assert tree_in(workspace) == before
    assert waiting(workspace) == []
    assert Journal().turns() == []


async def test_what_is_kept_is_written_with_the_output_it_had_and_can_be_undone(workspace: Path) -> None:
    (workspace / "text").write_text("one\n")
    before = tree_in(workspace)
    async with tried(workspace, KEEP) as (table, session, asked):
        result = await shell(table, session, "date +%N >>text; mkdir a; echo new >a/file; cat text; ls a")
    kept = (workspace / "text").read_text()
    assert (result.content, result.is_error, len(asked)) == (f"{kept}file", False, 1), "it ran once only"
    assert decided(table) == [("allow", "user")]
    assert [event.outcome for event in table.recorder.of(EffectMade)] == ["made"]
    assert (workspace / "a" / "file").read_text() == "new\n"
    assert waiting(workspace) == []
    [turn] = Journal().turns()
    assert undo(Journal(), turn, by="undo").conflicts == ()
    assert tree_in(workspace) == before


async def test_a_file_that_somebody_changes_while_it_waits_is_a_conflict_and_nothing_is_written(
    workspace: Path,
) -> None:
    (workspace / "a").write_text("a")
    (workspace / "b").write_text("b")

    def change(question: PermissionQuestion) -> PermissionDecision:
        (workspace / "b").write_text("theirs")
        return KEEP

    async with tried(workspace, change) as (table, session, _):
        result = await shell(table, session, "echo 1 >a; echo 1 >b")
    assert result.is_error
    assert "'" + str(workspace / "b") + "' changed since then; nothing was written" in str(result.content)
    assert ((workspace / "a").read_text(), (workspace / "b").read_text()) == ("a", "theirs")
    assert waiting(workspace) == []


async def test_a_file_that_somebody_changes_while_the_command_runs_is_no_effect_to_be_kept(workspace: Path) -> None:
    (workspace / "text").write_text("ours")
    (workspace / "flag").write_text("wait")
    async with tried(workspace, KEEP) as (table, session, asked):

        def hear(event: shown.SessionEvent) -> None:
            if isinstance(event, shown.ToolProgress):
                (workspace / "text").write_text("theirs")
                (workspace / "flag").write_text("go")

        session.subscribe(hear)
        command = 'echo more >>text; echo ready; while ! [ "$(cat flag)" = go ]; do sleep 0.01; done'
        result = await shell(table, session, command)
    assert (asked, decided(table)) == ([], [("deny", "sandbox")])
    assert "'text' changed while it ran; call it again" in str(result.content)
    assert (workspace / "text").read_text() == "theirs"


async def test_a_change_that_nobody_can_judge_is_discarded_with_advice(workspace: Path) -> None:
    async with tried(workspace) as (table, session, _):
        result = await shell(table, session, "touch new")
    assert decided(table) == [("deny", "headless")]
    advice = (
        "nobody is there to judge it; allow it beforehand with mn.allow('shell', pattern='touch new', inside=['.'])"
    )
    assert advice in str(result.content)
    assert list(workspace.iterdir()) == []


async def test_of_a_protected_file_the_advice_names_no_rule_as_none_would_keep_it(workspace: Path) -> None:
    async with tried(workspace) as (table, session, _):
        result = await shell(table, session, "touch new.ipynb")
    assert "new.ipynb is protected: it is a notebook, which may be open, so no rule keeps it" in str(result.content)
    assert "mn.allow" not in str(result.content)


async def test_a_question_nobody_answers_in_time_discards(workspace: Path) -> None:
    async with tried(workspace) as (table, session, _):
        session.permissions.can_ask = lambda: True
        session.permissions.ask_timeout = 0.05
        await shell(table, session, "touch new")
    assert decided(table) == [("deny", "timeout")]
    assert list(workspace.iterdir()) == waiting(workspace) == []


async def test_a_name_that_is_no_text_is_shown_and_kept(workspace: Path) -> None:
    async with tried(workspace, KEEP) as (table, session, asked):
        await shell(table, session, "touch $(printf 'a\\377b')")
    assert [file.path for file in asked[0].effect.files] == [f"{workspace}/a\\xffb"]
    assert [os.fsencode(path.name) for path in workspace.iterdir()] == [b"a\xffb"]


async def test_an_answer_given_after_the_turn_has_died_is_about_the_same_effect_only(
    workspace: Path, tmp_path: Path
) -> None:
    store = SqliteStore(tmp_path / "state.sqlite")
    async with tried(workspace, store=store) as (table, session, _):
        session.permissions.can_ask = lambda: True
        table.provider.push(tool_calls([("shell", {"command": "cat input >made"})]), text("ok"))
        (workspace / "input").write_text("one")
        with anyio.CancelScope() as scope:

            def hear(event: shown.SessionEvent) -> None:
                if isinstance(event, shown.QuestionAsked):
                    asked.append(session.permissions.open_questions()[0])
                    scope.cancel()

            asked: list[PermissionQuestion] = []
            session.subscribe(hear)
            await session.append_turn("go")
        [question] = asked
        request = question.model_copy(update={"effect": question.effect})
        other = question.effect.model_copy(update={"digest": "another"})
        assert effective_hash(request) == question.arguments_hash
        assert effective_hash(request.model_copy(update={"effect": other})) != question.arguments_hash
        assert effective_hash(request.model_copy(update={"effect": None})) != question.arguments_hash
    assert list(workspace.iterdir()) == [workspace / "input"]
    assert waiting(workspace) == []


@pytest.fixture
def service():  # type: ignore[no-untyped-def]
    """A server on this machine that says hello; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                while True:
                    with server.accept()[0] as client:
                        client.sendall(b"hello")
            except OSError:
                return

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def reach(port: int) -> str:
    return f"python3 -c 'import socket; print(socket.create_connection((\"127.0.0.1\", {port})).recv(9))'; test $? = 0"


async def test_a_command_that_is_stopped_in_the_sandbox_says_that_it_changed_nothing(workspace: Path) -> None:
    token = CancellationToken()
    async with tried(workspace, KEEP) as (table, session, _):
        table.provider.push(tool_calls([("shell", {"command": "echo 1 >new; echo ran; sleep 60"})]), text("ok"))

        def hear(event: shown.SessionEvent) -> None:
            if isinstance(event, shown.ToolProgress):
                token.cancel()

        session.subscribe(hear)
        with pytest.raises(Cancelled):
            await session.append_turn("go", RunOptions(cancellation=token))
        [result] = session.history()[-1].tool_results()
    assert result.content == "stopped in the sandbox: it changed nothing"
    assert decided(table) == [("deny", "cancelled")]
    assert list(workspace.iterdir()) == waiting(workspace) == []


async def test_what_needs_the_network_is_asked_about_anew_and_runs_outside(workspace: Path, service: int) -> None:
    async with tried(workspace, KEEP) as (table, session, asked):
        result = await shell(table, session, f"{reach(service)} && echo 1 >new")
    [question] = asked
    assert question.effect is not None
    assert question.effect.outside
    assert question.description == (
        "it could not do in the sandbox what it should: a connection to a service of this machine"
    )
    assert (result.content, decided(table)) == ("b'hello'", [("allow", "user")])
    assert (workspace / "new").exists()


async def test_what_may_not_run_outside_says_what_it_wanted(workspace: Path, service: int) -> None:
    async with tried(workspace, DISCARD) as (table, session, _):
        result = await shell(table, session, f"echo 1 >new; {reach(service)}")
    assert str(result.content).startswith("Tool execution denied: not now\nin the sandbox")
    assert "ConnectionRefusedError" in str(result.content)
    assert list(workspace.iterdir()) == waiting(workspace) == []


async def test_what_nobody_can_let_outside_has_the_output_it_had(workspace: Path, service: int) -> None:
    async with tried(workspace) as (table, session, _):
        result = await shell(table, session, f"echo 1 >new; {reach(service)}")
    assert result.is_error
    assert "[the sandbox has not: a connection to a service of this machine]" in str(result.content)
    assert decided(table) == [("allow", "sandbox")]
    assert list(workspace.iterdir()) == waiting(workspace) == []


BOUNDED = replace(POLICY, sandboxed_only=True)


async def test_under_a_policy_of_the_sandbox_only_nothing_runs_outside(workspace: Path, service: int) -> None:
    async with tried(workspace, KEEP, policy=BOUNDED) as (table, session, asked):
        reached = await shell(table, session, f"echo 1 >new; {reach(service)}")
        kept = await shell(table, session, "echo 1 >kept")
    assert "[the sandbox has not: a connection to a service of this machine]" in str(reached.content)
    assert (reached.is_error, kept.is_error, len(asked)) == (True, False, 1)
    assert decided(table) == [("allow", "sandbox"), ("allow", "user")]
    assert [file.name for file in workspace.iterdir()] == ["kept"]


async def test_under_a_policy_that_is_read_only_a_command_runs_in_the_sandbox_and_changes_nothing(
    workspace: Path,
) -> None:
    async with tried(workspace, KEEP, policy=replace(BOUNDED, read_only=True)) as (table, session, asked):
        read = await shell(table, session, "echo hello; echo 1 >/tmp/x")
        written = await shell(table, session, "echo 1 >new")
    assert (read.content, read.is_error, asked) == ("hello", False, [])
    assert "the runtime policy is read-only" in str(written.content)
    assert decided(table) == [("allow", "sandbox"), ("deny", "policy")]
    assert list(workspace.iterdir()) == waiting(workspace) == []


@pytest.mark.parametrize("how", ["off", "no_sandbox"])
async def test_under_a_policy_of_the_sandbox_only_nothing_runs_where_there_is_none(
    workspace: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tried(workspace, KEEP, policy=BOUNDED) as (table, session, _):
        if how == "off":
            session.permissions.sandbox = "off"
        else:
            monkeypatch.setattr("mentra_nb.agent.trial.fence_problem", lambda: "there is none here")
        result = await shell(table, session, "echo 1 >new")
    assert "the policy has commands run in the sandbox only" in str(result.content)
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize("tool", ["write", "files"])
async def test_a_denied_file_cannot_be_changed_by_a_command_either(workspace: Path, tool: str) -> None:
    async with tried(workspace, KEEP) as (table, session, asked):
        await session.permissions.add_rule(tool, "kept/*", allow=False)
        await shell(table, session, "mkdir kept; echo 1 >kept/file")
    assert (asked, decided(table)) == ([], [("deny", "rule")])
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize("tool", ["read", "files"])
async def test_a_file_that_may_not_be_read_is_not_there_for_a_command(workspace: Path, tool: str) -> None:
    (workspace / "private" / "deep").mkdir(parents=True)
    (workspace / "private" / "deep" / "a.txt").write_text("SECRET")
    (workspace / "note.own.txt").write_text("SECRET")
    (workspace / "open.txt").write_text("public")
    async with tried(workspace, DISCARD) as (table, session, asked):
        for pattern in ("private/*", "*.own.txt"):
            await session.permissions.add_rule(tool, pattern, allow=False)
        line = "cat open.txt private/deep/a.txt note.own.txt 2>/dev/null; grep -r SECRET . ; ls private; true"
        result = await shell(table, session, line)
    assert "public" in result.display()
    assert "SECRET" not in result.display()
    assert asked == []
    assert (workspace / "note.own.txt").read_text() == "SECRET"


@pytest.mark.parametrize("name", ["mentra.toml", "denied/file"])
async def test_the_policy_holds_for_every_file(workspace: Path, name: str) -> None:
    (workspace / "denied").mkdir()
    policy = RuntimePolicy(allow_shell_commands=True, denied_write_roots=(workspace / "denied",))
    async with tried(workspace, KEEP, policy=policy) as (table, session, asked):
        await shell(table, session, f"echo 1 >fine; echo 1 >{name}")
    assert (asked, decided(table)) == ([], [("deny", "policy")])
    assert not (workspace / "fine").exists()


async def test_a_protected_file_is_asked_about_by_name(workspace: Path) -> None:
    async with tried(workspace, DISCARD) as (table, session, asked):
        await shell(table, session, "mkdir -p .git/hooks; echo 1 >.git/hooks/pre-commit; echo 1 >fine")
    assert asked[0].description.startswith(".git is protected: it belongs to Git")


@pytest.mark.parametrize("how", ["always", "off", "home", "no_sandbox", "denied_by_rule"])
async def test_where_it_is_not_tried_it_is_asked_about_beforehand(
    workspace: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tried(workspace, DISCARD) as (table, session, asked):
        if how == "always":
            session.permissions.ask = "always"
        elif how == "off":
            session.permissions.sandbox = "off"
        elif how == "home":
            monkeypatch.setattr(fenced.Path, "home", lambda: workspace / "me")
        elif how == "no_sandbox":
            monkeypatch.setattr("mentra_nb.agent.trial.fence_problem", lambda: "there is none")
        else:
            await session.permissions.add_rule("shell", "touch *", allow=False)
        await shell(table, session, "touch new")
    assert [question.effect for question in asked] == ([] if how == "denied_by_rule" else [None])
    assert list(workspace.iterdir()) == []
    assert not (workspace.parent / "home" / "effects").exists() or waiting(workspace) == []


async def test_a_rule_or_an_authorizer_that_allows_runs_it_plainly(workspace: Path) -> None:
    async with tried(workspace, DISCARD) as (table, session, asked):
        await session.permissions.add_rule("shell", "touch *", allow=True)
        await shell(table, session, "touch by_rule")
    async with tried(workspace, DISCARD, authorizer=Judge(ToolAuthorizationDecision.allow())) as (table, session, more):
        await shell(table, session, "touch by_authorizer")
    assert asked == more == []
    assert sorted(path.name for path in workspace.iterdir()) == ["by_authorizer", "by_rule"]


# ---- remembered -----------------------------------------------------------------------------------------------


def always(**options: Any) -> PermissionDecision:
    return PermissionDecision(allow=True, remember="session", **options)


async def test_what_a_command_changes_in_named_folders_is_kept_from_then_on(workspace: Path) -> None:
    async with tried(workspace, always(pattern="mkdir -p *")) as (table, session, asked):
        await shell(table, session, "mkdir -p build/one")
        [rule] = await session.permissions.rules()
        await shell(table, session, "mkdir -p build/two")
        session.permissions.ask = "rules"
        await shell(table, session, "mkdir -p build/three")
        await shell(table, session, "mkdir -p elsewhere")
    assert (rule.pattern, rule.folders) == ("mkdir -p *", (str(workspace / "build"),))
    assert len(asked) == 1
    assert decided(table) == [("allow", "user"), ("allow", "rule"), ("allow", "rule"), ("deny", "setting")]
    assert sorted(path.name for path in workspace.rglob("*")) == ["build", "one", "three", "two"]


async def test_a_redirection_into_a_named_folder_is_kept_and_one_elsewhere_is_asked_about(workspace: Path) -> None:
    (workspace / "build").mkdir()
    async with tried(workspace, DISCARD) as (table, session, asked):
        rule = await session.permissions.add_rule("shell", "echo *", allow=True, folders=(str(workspace / "build"),))
        await shell(table, session, "echo one > build/one")
        await shell(table, session, "echo two > two")
        await shell(table, session, "echo three > build/../three; echo four >build/four")
        await shell(table, session, "rm build/one > build/five")
    assert rule.pattern == "echo *"
    assert decided(table) == [("allow", "rule"), *[("deny", "user")] * 3]
    assert len(asked) == 3
    assert sorted(path.name for path in workspace.rglob("*")) == ["build", "one"]


async def test_the_answer_to_a_redirection_is_remembered_by_a_pattern_of_its_command(workspace: Path) -> None:
    async with tried(workspace, always(pattern="echo *")) as (table, session, asked):
        await shell(table, session, "echo one > build-1")
        [rule] = await session.permissions.rules()
        await shell(table, session, "echo two words >> build-1")
    assert [each.pattern for each in proposed(asked[0])] == ["echo one > build-1", "echo one*", "echo *"]
    assert (rule.pattern, rule.folders) == ("echo *", (str(workspace),))
    assert decided(table) == [("allow", "user"), ("allow", "rule")]
    assert (workspace / "build-1").read_text() == "one\ntwo words\n"


async def test_a_rule_on_effects_lets_nothing_run_outside_the_sandbox(workspace: Path, service: int) -> None:
    async with tried(workspace, DISCARD) as (table, session, asked):
        await session.permissions.add_rule("shell", "*", allow=True, folders=(str(workspace),))
        await shell(table, session, "touch kept")
        await shell(table, session, reach(service))
        session.permissions.ask = "always"
        await shell(table, session, "touch asked")
    assert [question.effect.outside if question.effect else None for question in asked] == [True, None]
    assert [path.name for path in workspace.iterdir()] == ["kept"]


async def test_a_protected_file_is_asked_about_despite_a_rule_on_effects(workspace: Path) -> None:
    async with tried(workspace, DISCARD) as (table, session, asked):
        await session.permissions.add_rule("shell", "*", allow=True, folders=(str(workspace),))
        await shell(table, session, "touch new.ipynb")
    assert len(asked) == 1
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "answer", "why"),
    [
        ("touch a/x b/x", always(folders=("a",)), "not all that it changed is inside"),
        ("touch a/x", always(folders=("..",)), "name folders in the working folder"),
        ("touch a/x", always(folders=()), "name folders in the working folder"),
        ("touch a/x", always(folders=("a",), pattern="rm *"), "does not cover this call"),
        ("touch a/new.ipynb", always(), "is always asked about"),
        ("touch a/x", PermissionDecision(allow=False, remember="session"), "this answer holds once"),
    ],
)
async def test_an_answer_that_cannot_be_remembered_so_is_refused(
    workspace: Path, command: str, answer: PermissionDecision, why: str
) -> None:
    (workspace / "a").mkdir()
    (workspace / "b").mkdir()
    said = []

    async with tried(workspace) as (table, session, _):
        session.permissions.can_ask = lambda: True

        def hear(event: shown.SessionEvent) -> None:
            if isinstance(event, shown.QuestionAsked):
                with pytest.raises(OperationDenied) as refused:
                    session.resolve_permission(event.request_id, answer)
                said.append(str(refused.value))
                session.resolve_permission(event.request_id, DISCARD)

        session.subscribe(hear)
        await shell(table, session, command)
        assert await session.permissions.rules() == []
    assert why in said[0]
