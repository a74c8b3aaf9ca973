"""Redirections in a shell line, which a rule on effects covers, since what they do is told by the sandbox."""

from __future__ import annotations

import os
import shlex

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mentra_nb.authorization import PermissionRule, Subject
from mentra_nb.permission.lines import parsed
from mentra_nb.permission.rules import find_rule
from mentra_nb.permission.splitting import simple_commands, without_redirections


def allow(pattern: str, folders: tuple[str, ...] | None = None) -> PermissionRule:
    return PermissionRule(id="1", tool="shell", pattern=pattern, allow=True, folders=folders)


@pytest.mark.parametrize(
    ("line", "without"),
    [
        ("echo a > b", "echo a "),
        ("echo a>b c", "echo a c"),
        ("echo > 'b c'\"d\" a", "echo a"),
        (">b echo a", "echo a"),
        ("echo foo2>x", "echo foo2 "),
        ("make 2>&1 >>log | tee x", "make | tee x"),
        ("sort <a >|b; cat <>c; ls 2>&-", "sort ; cat ; ls "),
        ("echo a &>x", "echo a & "),
        ("echo '> a' \"> b\"", "echo '> a' \"> b\""),
    ],
)
def test_redirections_are_left_out_of_a_line_for_rules_on_effects(line: str, without: str) -> None:
    assert without_redirections(line) == without


@pytest.mark.parametrize(
    "line",
    [
        *("echo >$(id)", "echo >`id`", "echo >$x", "cat <<E", "cat <<<x", "cat <(id)", "echo >(id)", "echo >a(b)"),
        *("echo >'a\nb'", "echo 'a >b", "echo >'a", "echo >a\\ b", "echo >{a,b}", "echo >&x", "echo >&2x", "echo >"),
        *("echo # >x", "echo >#x", ">x", "echo a >>>b", "A=1 >x rm b", "r''m >x", "! id >x"),
    ],
)
def test_a_line_whose_redirections_are_not_plain_is_not_taken_apart(line: str) -> None:
    assert simple_commands(without_redirections(line)) is None


PIECES = [
    *"ab1 >>><<&|;'\"$(`\\#!\n",
    *(" ", " ", ">>", "<<", ">&1", "2>", ">&", "&>", " >f", "<>", ">|", "rm ", "'q'", '"q"'),
]


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
@settings(max_examples=int(os.environ.get("MENTRA_LINES", "300")), deadline=None)
@example("a >f a")
def test_a_line_taken_apart_without_its_redirections_runs_what_the_grammar_of_the_shell_reads(line: str) -> None:
    commands = simple_commands(without_redirections(line))
    if commands is not None and (read := parsed(line)) is not None:
        assert sorted(tuple(shlex.split(each)) for each in commands) == sorted(read.commands)


def test_a_rule_on_effects_covers_a_line_with_redirections_and_any_other_only_its_exact_text() -> None:
    on_effects = allow("echo *", ("/p",))
    subject, other = Subject.shell("echo a >b; echo c 2>&1"), Subject.shell("echo a >b; rm c >d")
    assert find_rule([on_effects], "shell", subject, on_effects=True) is on_effects
    assert find_rule([on_effects], "shell", other, on_effects=True) is None
    assert find_rule([on_effects], "shell", subject) is None
    for on in (True, False):
        assert find_rule([allow("echo *")], "shell", subject, on_effects=on) is None
    denial = PermissionRule(id="2", tool="shell", pattern="*> /etc/*", allow=False)
    assert find_rule([on_effects, denial], "shell", Subject.shell("echo a > /etc/b"), on_effects=True) is denial
