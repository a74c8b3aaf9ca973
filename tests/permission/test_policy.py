"""The policy: which paths may be read and written, whether commands run at all, and what they get."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kits.core import context

from mentra_nb.permission.policy import PolicyViolation, RuntimePolicy
from mentra_nb.tools.builtin.python import PythonTool
from mentra_nb.tools.tool import MainThread

NO_KERNEL: Any = None
"""A policy is asked before the kernel is."""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("s")
    return folder


def test_the_base_folder_may_be_read_and_written(base: Path) -> None:
    policy = RuntimePolicy()
    assert policy.readable(base, "a.txt") == base / "a.txt"
    assert policy.writable(base, "new/deep.txt") == base / "new" / "deep.txt"
    assert policy.readable(base, str(base / "a.txt")) == base / "a.txt"


@pytest.mark.parametrize(
    "path", ["../outside/secret", "sub/../../outside/secret", "/etc/passwd", "../../../../../../etc/passwd", "~root/x"]
)
def test_a_path_that_leads_outside_is_refused(base: Path, path: str) -> None:
    with pytest.raises(PolicyViolation, match=r"outside the runtime policy read roots|cannot be resolved") as refusal:
        RuntimePolicy().readable(base, path)
    assert refusal.value.action == "files_read"
    with pytest.raises(PolicyViolation) as refusal:
        RuntimePolicy().writable(base, path)
    assert refusal.value.action == "files_write"


def test_authorize_file_write_rejects_symlink_escape(base: Path) -> None:
    (base / "link").symlink_to(base.parent / "outside")
    with pytest.raises(PolicyViolation, match="outside the runtime policy write roots"):
        RuntimePolicy().writable(base, "link/secret")
    with pytest.raises(PolicyViolation, match="outside the runtime policy write roots"):
        RuntimePolicy().writable(base, "link/not-yet-there")


def test_a_link_that_stays_inside_is_followed(base: Path) -> None:
    (base / "link").symlink_to(base / "a.txt")
    assert RuntimePolicy().readable(base, "link") == base / "a.txt"


def test_parent_of_a_link_is_what_it_says(base: Path) -> None:
    (base / "link").symlink_to(base.parent / "outside")
    assert RuntimePolicy().readable(base, "link/../a.txt") == base / "a.txt"


def test_a_loop_of_links_is_refused(base: Path) -> None:
    (base / "one").symlink_to(base / "two")
    (base / "two").symlink_to(base / "one")
    with pytest.raises(PolicyViolation):
        RuntimePolicy().readable(base, "one/x")


def test_a_nul_character_is_refused(base: Path) -> None:
    with pytest.raises(PolicyViolation, match="NUL"):
        RuntimePolicy().readable(base, "a\0.txt")


def test_roots_compare_by_path_component(base: Path) -> None:
    (base.parent / "base-two").mkdir()
    with pytest.raises(PolicyViolation):
        RuntimePolicy().readable(base, "../base-two/x")


def test_a_read_root_is_for_reading_and_a_write_root_for_both(base: Path) -> None:
    outside = base.parent / "outside"
    readable = RuntimePolicy(allowed_read_roots=(outside,))
    assert readable.readable(base, "../outside/secret") == outside / "secret"
    with pytest.raises(PolicyViolation):
        readable.writable(base, "../outside/secret")
    writable = RuntimePolicy(allowed_write_roots=(outside,))
    assert writable.writable(base, "../outside/x") == outside / "x"
    assert writable.readable(base, "../outside/secret") == outside / "secret"


def test_a_root_that_is_a_link_counts_as_where_it_points(base: Path) -> None:
    link = base.parent / "link"
    link.symlink_to(base.parent / "outside")
    assert RuntimePolicy(allowed_read_roots=(link,)).readable(base, str(link / "secret")).name == "secret"


def test_read_only_refuses_every_write_and_every_command_also_in_the_base_folder(base: Path) -> None:
    policy = RuntimePolicy(read_only=True, allow_shell_commands=True, allowed_write_roots=(base,))
    with pytest.raises(PolicyViolation, match="read-only"):
        policy.writable(base, "a.txt")
    with pytest.raises(PolicyViolation, match="read-only"):
        policy.check_command(base, base)
    assert policy.readable(base, "a.txt")


@pytest.mark.parametrize("bound", [{"read_only": True}, {"sandboxed_only": True}, {"allow_shell_commands": False}])
def test_code_in_the_kernel_is_refused_where_no_command_may_run_outside(base: Path, bound: dict[str, bool]) -> None:
    tool, arguments = PythonTool(NO_KERNEL), {"code": "1"}
    cell = MainThread(NO_KERNEL, lambda: None)
    tool.check_policy(context(base, RuntimePolicy.permissive(), cell=cell), arguments)
    with pytest.raises(PolicyViolation, match="code in the kernel"):
        tool.check_policy(context(base, replace(RuntimePolicy.permissive(), **bound)), arguments)


def test_shell_roots_and_background_switches_short_circuit(base: Path) -> None:
    with pytest.raises(PolicyViolation, match="disabled by the runtime policy") as refusal:
        RuntimePolicy().check_command(base, Path("/"))
    assert refusal.value.action == "shell_command"


def test_authorize_command_execution_rejects_working_directory_outside_roots(base: Path) -> None:
    policy = RuntimePolicy.permissive()
    policy.check_command(base, base / "sub")
    with pytest.raises(PolicyViolation, match="outside the runtime policy roots"):
        policy.check_command(base, base / "sub" / ".." / "..")
    RuntimePolicy(allow_shell_commands=True, allowed_working_roots=(base.parent,)).check_command(base, base.parent)


def test_a_command_gets_only_the_allowed_names_that_exist() -> None:
    environment = RuntimePolicy(allowed_env_vars=("PATH", "NO_SUCH_VARIABLE")).environment()
    assert environment == {"PATH": os.environ["PATH"]}


def test_a_requested_time_is_clamped() -> None:
    policy = RuntimePolicy(default_command_timeout=5, max_command_timeout=10)
    assert [policy.command_timeout(t) for t in (None, 1, 100)] == [5, 1, 10]


def test_the_default_has_no_shell_and_the_notebook_has() -> None:
    assert not RuntimePolicy().allow_shell_commands
    assert RuntimePolicy.for_notebook().allow_shell_commands
    assert RuntimePolicy.permissive().allow_background_commands


def test_a_denied_root_inside_an_allowed_one_refuses_the_write(base: Path) -> None:
    policy = RuntimePolicy(allowed_write_roots=(base,), denied_write_roots=(base / "sub",))
    assert policy.writable(base, "a.txt") == base / "a.txt"
    with pytest.raises(PolicyViolation, match="denied write roots") as refusal:
        policy.writable(base, "sub/new.txt")
    assert refusal.value.action == "files_write"
    assert policy.readable(base, "sub/new.txt")


@pytest.mark.parametrize("path", ["x/../sub/new.txt", "./sub/./new.txt", "../base/sub/new.txt", "sub"])
def test_a_traversal_into_a_denied_root_is_refused(base: Path, path: str) -> None:
    with pytest.raises(PolicyViolation, match="denied write roots"):
        RuntimePolicy(denied_write_roots=(base / "sub",)).writable(base, path)


def test_a_symlink_into_a_denied_root_is_refused(base: Path) -> None:
    (base / "link").symlink_to("sub")
    (base / "back").mkdir()
    with pytest.raises(PolicyViolation, match="denied write roots"):
        RuntimePolicy(denied_write_roots=(base / "sub",)).writable(base, "link/new.txt")
    with pytest.raises(PolicyViolation, match="denied write roots"):  # the denied root is named by a link
        RuntimePolicy(denied_write_roots=(base / "link",)).writable(base, "sub/new.txt")


def test_a_policy_shows_what_differs_from_the_default() -> None:
    assert repr(RuntimePolicy()) == "RuntimePolicy()"
    assert repr(RuntimePolicy.permissive()) == (
        "RuntimePolicy(allow_shell_commands=True, allow_background_commands=True)"
    )
    for policy in (RuntimePolicy.workspace_bounded("/srv/app"), RuntimePolicy.for_notebook()):
        assert eval(repr(policy), {"RuntimePolicy": RuntimePolicy, "PosixPath": Path}) == policy


def test_work_inside_one_folder_has_no_commands_and_then_in_the_sandbox_only(base: Path) -> None:
    policy = RuntimePolicy.workspace_bounded(base / "sub")
    assert policy.writable(base.parent / "outside", str(base / "sub" / "new.txt"))
    with pytest.raises(PolicyViolation, match="write roots"):
        policy.writable(base / "sub", str(base / "new.txt"))
    with pytest.raises(PolicyViolation, match="disabled by the runtime policy"):
        policy.check_command(base, base / "sub")
    on = replace(policy, allow_shell_commands=True, allow_background_commands=True)
    on.check_command(base, base / "sub")
    with pytest.raises(PolicyViolation, match="in the sandbox only") as refusal:
        on.check_background(base, base / "sub")
    assert refusal.value.action == "background_command"
    assert [on.command_timeout(asked) for asked in (None, 1000.0)] == [120.0, 600.0]


@pytest.mark.parametrize("line", ["git log", "git log | ls -la && git status", "ls; git log", "ls 'a b'"])
def test_a_line_of_allowed_programs_passes(line: str) -> None:
    RuntimePolicy(allowed_programs=("git", "ls")).check_programs(line)
    RuntimePolicy().check_programs(line)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("rm -rf x", "the policy allows git, ls only, not rm"),
        ("git log && curl example.com", "only, not curl"),
        ("/tmp/git log", "only, not /tmp/git"),
        ("env git log", "only, not env"),
        ("GIT_DIR=x git log", "cannot be told"),
        ("ls $(rm x)", r"cannot be told: it has \$ and \("),
        ("git log > out", "cannot be told"),
        ("'rm' x", "cannot be told"),
        ("ls\nrm x", "cannot be told"),
        ("", "cannot be told"),
    ],
)
def test_a_line_that_runs_or_may_run_another_program_is_refused(line: str, words: str) -> None:
    with pytest.raises(PolicyViolation, match=words) as refusal:
        RuntimePolicy(allowed_programs=("git", "ls")).check_programs(line)
    assert refusal.value.action == "shell_command"


@given(st.lists(st.sampled_from(["..", ".", "a", "sub", "~", "link", "", "b.txt"]), max_size=6))
def test_whatever_may_be_written_is_inside(parts: list[str]) -> None:
    base = Path("/nowhere/base")
    try:
        target = RuntimePolicy().writable(base, "/".join(parts))
    except PolicyViolation:
        return
    assert target.is_relative_to(base)
    assert ".." not in target.parts
