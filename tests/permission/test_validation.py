"""What a shell line seems to be for, and what a policy makes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kits.core import bench, context

from mentra_nb.authorization import PermissionDecision, PermissionRule
from mentra_nb.event import types as e
from mentra_nb.permission.policy import PolicyViolation, RuntimePolicy
from mentra_nb.permission.rules import find_rule
from mentra_nb.permission.validation import judged
from mentra_nb.providers.scripted import text, tool_calls
from mentra_nb.tools.builtin.shell import ShellTool

HERE = Path("/srv/app")
DENIAL = PermissionDecision(allow=False)


def intent(line: str) -> str:
    return judged(line, HERE).intent


def outcome(line: str, *, read_only: bool = False) -> str:
    return judged(line, HERE, read_only=read_only).outcome


@pytest.mark.parametrize(
    "line",
    ["ls -la", "cat a | grep b | wc -l", "git log --oneline", "git branch", "find . -name x", "sed s/a/b/ f", ""],
)
def test_classify_intent_read_only(line: str) -> None:
    assert intent(line) in ("read_only", "unknown")
    assert intent(line) == "read_only" or not line


@pytest.mark.parametrize(
    "line", ["cp a b", "mkdir x", "ls && touch y", "sed -i s/a/b/ f", "git commit -m x", "git stash", "find . -delete"]
)
def test_classify_intent_write(line: str) -> None:
    assert intent(line) == "write"


@pytest.mark.parametrize("line", ["rm x", "shred x", "wipefs /dev/sda", "ls; rm -rf y", "mkfs.ext4 /dev/sda"])
def test_classify_intent_destructive(line: str) -> None:
    assert intent(line) == "destructive"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("curl example.com", "network"),
        ("kill 3", "process_management"),
        ("pip install x", "package_management"),
        ("systemctl stop x", "system_admin"),
        ("make test", "unknown"),
        ("make && curl example.com", "network"),
    ],
)
def test_classify_intent_other(line: str, expected: str) -> None:
    assert intent(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        "A=1 rm x",
        "A='b c' B=2 rm x",
        "env A=1 -i rm x",
        "sudo -n rm x",
        "timeout 5 nice -n 3 rm x",
        "/bin/rm x",
        "sh -c 'A=1 rm x'",
        'bash -ec true; bash -c "ls; rm x"',
        "echo $(rm x)",
        "echo `rm x`",
        "find . | xargs rm",
    ],
)
def test_extracts_command_from_env_prefix(line: str) -> None:
    assert intent(line) == "destructive"


@pytest.mark.parametrize(
    "line",
    [
        "mv a b",
        "ls > out",
        "ls >> out",
        "sudo touch x",
        "sed -i s/a/b/ f",
        "npm install",
        "docker run x",
        "git push",
        "git stash",
        "git branch new",
        "git tag v1",
        "git config user.name x",
        "git -C x commit",
        'echo "$(touch x)"',
        "ls; kill 1",
    ],
)
def test_blocks_what_seems_to_change_something_under_a_policy_that_is_read_only(line: str) -> None:
    assert outcome(line, read_only=True) == "deny"
    assert outcome(line) != "deny"


@pytest.mark.parametrize(
    "line",
    [
        "ls",
        "git stash list",
        "git branch -a",
        "git config --get user.name",
        "git remote",
        "echo 'a > b'",
        "cat a | sort",
    ],
)
def test_a_policy_that_is_read_only_lets_pass_what_reads(line: str) -> None:
    assert outcome(line, read_only=True) == "allow"


def test_what_is_not_known_is_asked_about_under_a_policy_that_is_read_only() -> None:
    assert (outcome("make test", read_only=True), outcome("make test")) == ("prompt", "allow")


@pytest.mark.parametrize(
    "line",
    [
        "rm -rf /",
        "rm -r -f x",
        "rm --recursive --force x",
        "ls && sudo rm -fR ~",
        "dd if=/dev/zero of=x",
        "chmod -R 777 .",
        "echo 1 > /dev/sda",
        ":(){ :|:& };:",
        "shred x",
        "mkfs /dev/sda",
    ],
)
def test_warns_of_what_destroys(line: str) -> None:
    assert outcome(line) == "prompt"


@pytest.mark.parametrize(
    "line", ["cp a /etc/passwd", "touch /usr/x", "rm /var/x", "cat ../x", "ls ~/x", "ls $HOME", "sed -i s/a/b/ f"]
)
def test_warns_of_what_leaves_the_folder(line: str) -> None:
    assert outcome(line) == "prompt"


@pytest.mark.parametrize(
    "line", ["rm x", "rm -r x", "cat /etc/hosts", "chmod 644 x", "cp a b", "cat /srv/app/../app/x"]
)
def test_no_warning_of_what_is_usual(line: str) -> None:
    assert outcome(line) == "allow"


@given(st.text(alphabet="ab -/'\"$`();|&>\n=~.sudo rmgit", max_size=60))
def test_any_text_has_a_verdict(line: str) -> None:
    assert judged(line, HERE, read_only=True).outcome in ("allow", "prompt", "deny")


def test_lines_within_lines_are_read_to_a_depth() -> None:
    assert judged('echo "' + "$( " * 20_000 + '"', HERE, read_only=True).outcome == "deny"
    assert intent("sh -c 'sh -c \"sh -c rm\"'") == "destructive"


# ---- in a policy ----------------------------------------------------------------------------------------------


def seen(tmp_path: Path, line: str, policy: RuntimePolicy) -> tuple[tuple[str, ...], object]:
    """Return which parts of a call no wildcard covers, and what its preview says of the line."""
    arguments, ctx = {"command": line}, context(tmp_path, policy)
    made = ShellTool()
    return made.subject(ctx, arguments).protected, made.structured_input(ctx, arguments).get("validation")


def test_shell_validation_defaults_off_and_uses_authorization_semantics(tmp_path: Path) -> None:
    off = RuntimePolicy(allow_shell_commands=True)
    assert off.shell_validation == "off"
    assert seen(tmp_path, "rm -rf x", off) == ((), None)
    warn = replace(off, shell_validation="warn")
    assert seen(tmp_path, "ls", warn) == (
        (),
        {"mode": "warn", "outcome": "allow", "intent": "read_only", "reason": None},
    )
    protected, validation = seen(tmp_path, "rm -rf x", warn)
    assert validation == {
        "mode": "warn",
        "outcome": "prompt",
        "intent": "destructive",
        "reason": "rm -rf deletes folders without asking",
    }
    anything = PermissionRule(id="r", scope="session", scope_key="s", tool="shell", pattern="*", allow=True)
    exactly = anything.model_copy(update={"pattern": "rm -rf x"})
    subject = ShellTool().subject(context(tmp_path, warn), {"command": "rm -rf x"})
    assert protected == ("rm -rf x",)
    assert (find_rule([anything], "shell", subject), find_rule([exactly], "shell", subject)) == (None, exactly)


def test_what_is_refused_depends_on_the_mode(tmp_path: Path) -> None:
    reading = RuntimePolicy(allow_shell_commands=True, read_only=True, sandboxed_only=True)
    ShellTool().check_policy(context(tmp_path, replace(reading, shell_validation="warn")), {"command": "touch x"})
    enforced = context(tmp_path, replace(reading, shell_validation="enforce"))
    ShellTool().check_policy(enforced, {"command": "ls"})
    with pytest.raises(PolicyViolation, match="touch may change something, and the policy is read-only") as refusal:
        ShellTool().check_policy(enforced, {"command": "touch x"})
    assert refusal.value.action == "shell_validation"


@pytest.mark.anyio
async def test_a_person_reads_why_a_line_that_a_wildcard_covers_is_asked_about(tmp_path: Path) -> None:
    policy = RuntimePolicy(allow_shell_commands=True, shell_validation="warn")
    turn = (tool_calls([("shell", {"command": "rm -rf nothing"})]), text("ok"))
    async with bench(*turn, tools=[ShellTool()], policy=policy, working_directory=tmp_path, authorizer=None) as table:
        session = await table.session()
        await session.permissions.add_rule("shell", "*", allow=True)
        asked: list[str] = []

        def answer(event: object) -> None:
            for question in session.permissions.open_questions():
                asked.append(question.description)
                session.resolve_permission(question.request_id, DENIAL)

        session.subscribe(answer)
        await session.append_turn("go")
        [decision] = table.recorder.of(e.ToolAuthorizationFinished)
    assert asked == ["rm -rf deletes folders without asking: only the exact line in a rule covers it"]
    assert decision.decided_by == "user"
