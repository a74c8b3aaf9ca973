"""A denial judges what a shell line would run, however it is written; and it raises no question about other lines."""

from __future__ import annotations

import itertools
import os
import shlex
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kits.denied_lines import COPIES, NEAR, PUBLIC, UNJUDGED, WRAPPED, spellings
from kits.harmless_lines import ASKED, ASKED_BESIDE, LINES

from mentra_nb.authorization import PermissionRule, Subject
from mentra_nb.permission import rules as rules_module
from mentra_nb.permission.denials import MAX_DEPTH, judge
from mentra_nb.permission.patterns import exactly, matches, overlap
from mentra_nb.permission.programs import SHELLS, WRAPPERS
from mentra_nb.permission.rules import find_rule

SPELLINGS = int(os.environ.get("MENTRA_FAULT_SPELLINGS", "300"))
"""Generated spellings that are tried; `make faults` tries more."""
ALLOW = PermissionRule(id="allow", tool="shell", pattern="*", allow=True)


def deny(pattern: str) -> PermissionRule:
    return PermissionRule(id=f"deny {pattern}", tool="shell", pattern=pattern, allow=False)


def decided(line: str, *rules: PermissionRule) -> PermissionRule | None:
    return find_rule([ALLOW, *rules], "shell", Subject.shell(line))


def test_there_are_300_spellings_and_18_public_ones_among_them() -> None:
    assert len(spellings()) >= 300
    assert len(PUBLIC) == 18


def test_a_denied_command_is_denied_or_asked_about_however_it_is_spelt() -> None:
    assert [line for denial, line in spellings() if decided(line, deny(denial)) is ALLOW] == []


def test_nearly_all_spellings_are_denied_and_not_only_asked_about() -> None:
    denied = [line for denial, line in spellings() if judge([deny(denial)], line).denied is not None]
    assert len(denied) >= 0.95 * len(spellings())


@pytest.mark.parametrize("name", [*WRAPPERS, *sorted(SHELLS)])
def test_each_program_that_runs_what_it_is_given_is_seen_through(name: str) -> None:
    own = [line.format("rm x", q="'rm x'") for line in WRAPPED if name in line.split() and "{d}" not in line]
    assert own, f"there is no line with {name}"
    assert [line for line in own if judge([deny("rm *")], line).denied is None] == []


def test_only_what_unknown_programs_and_interpreters_are_given_is_asked_about_instead() -> None:
    lines = {each: each.format("rm x", q="'rm x'", d='"rm x"') for each in WRAPPED}
    asked = {each.split()[0] for each, line in lines.items() if judge([deny("rm *")], line).denied is None}
    assert asked == {"unknown-one", "caffeinate", "proxychains4", "python", "awk", "perl"}


@pytest.mark.parametrize("line", ["rm > out x", "rm 2>&1 >out x", "> out rm x", "git $'\\x70ush' x; rm $y", "rm \\\nx"])
def test_a_command_is_denied_also_where_its_words_stand_around_other_signs(line: str) -> None:
    assert judge([deny("rm *")], line).denied is not None


def test_a_shell_behind_a_program_that_is_not_known_is_looked_into() -> None:
    line = """unknown-one --opt sh -c 'git $'"'"'\\x70ush'"'"''"""
    assert judge([deny("git push*")], line).possible is not None


@pytest.mark.parametrize("denial", ["rm *", "shutdown*"])
@pytest.mark.parametrize("payload", ["rm x", "echo cm0geA== | base64 -d | sh", "./q"])
def test_what_no_denial_can_judge_is_asked_about_while_there_is_one(payload: str, denial: str) -> None:
    assert [line for each in UNJUDGED if decided(line := each.format(payload), deny(denial)) is ALLOW] == []


@pytest.mark.parametrize("options", ["-rf x", "x -fr", "--recursive --force x"])
def test_what_a_denial_names_is_asked_about_behind_a_program_that_is_not_known(options: str) -> None:
    assert [line for each in COPIES if decided(line := each.format(options), deny("rm -rf *")) is ALLOW] == []


@pytest.mark.parametrize("denial", ["rm *", "rm -rf *", "git push*", "shutdown*", "dd *"])
def test_what_is_near_to_such_lines_is_still_covered(denial: str) -> None:
    assert [line for line in NEAR if decided(line, deny(denial)) is not ALLOW] == []


PARTS = {"rm": ["rm", "'rm'", '"rm"', "r''m", "r\\m", "/bin/rm", "/usr/bin/../bin/rm", "$'rm'", 'r"m"', "\\rm"]}
PARTS["git"] = ["git", "'git'", "g\\it", "/usr/bin/git", "git -C .", "git --no-pager", "git -c a=b", "git --git-dir x"]
PARTS["push"] = ["push", "'push'", "pu''sh", "p\\ush", '"push"', "$'\\x70ush'"]
COMMANDS = st.one_of(
    st.tuples(
        st.just("rm *"), st.tuples(st.sampled_from(PARTS["rm"]), st.sampled_from(["x", "-rf x", "-- 'a b'", "*"]))
    ),
    st.tuples(st.just("git push*"), st.tuples(st.sampled_from(PARTS["git"]), st.sampled_from(PARTS["push"]))),
)
NESTING = [line for line in WRAPPED if not any(sign in line for sign in ("{d}", "EOF", "`", "python"))]
"""Those that may hold a wrapped line; the code of an interpreter is not a line of a shell."""


@settings(max_examples=SPELLINGS, deadline=None)
@given(
    command=COMMANDS,
    blank=st.sampled_from([" ", "  ", "\t", " \\\n "]),
    wrapped=st.lists(st.sampled_from(NESTING), max_size=3),
)
def test_no_wrapper_quote_path_or_option_gets_a_command_past_its_denial(
    command: tuple[str, tuple[str, str]], blank: str, wrapped: list[str]
) -> None:
    denial, words = command
    line = blank.join(words)
    for each in wrapped:
        line = each.format(line, q=shlex.quote(line))
    assert decided(line, deny(denial)) is not ALLOW


# ---- lines that harm nobody -----------------------------------------------------------------------------------


def test_there_are_300_harmless_lines() -> None:
    assert len({*LINES, *ASKED}) >= 300


@pytest.mark.parametrize("denial", [None, *ASKED_BESIDE])
def test_no_more_is_asked_about_harmless_lines_than_before_lines_were_parsed(denial: str | None) -> None:
    before = ASKED_BESIDE[denial] if denial is not None else ()
    rules = [deny(denial)] if denial is not None else []
    asked = [line for line in LINES if decided(line, *rules) is not ALLOW]
    assert set(asked) <= set(before)


def test_a_denied_word_in_the_words_of_a_program_that_runs_nothing_is_no_question() -> None:
    for denial, lines in ASKED_BESIDE.items():
        left = [line for line in lines if decided(line, deny(denial)) is not ALLOW]
        assert set(left) <= {"rg -l rm src", "rg -n 'git push' docs", "sudo -l"}


@pytest.mark.parametrize(
    ("denial", "line"),
    [
        ("rm *", "cat <<'EOF'\nrm x\nEOF"),
        ("rm *", "echo 'a; rm x' > out"),
        ("rm *", "echo a # ; rm x"),
        ("git push*", "git commit -m 'a\ngit push'"),
        ("rm *", "x='rm y'"),
        ("rm -rf *", "rm -r x > out"),
        ("rm -rf *", "rm -- -rf x > out"),
    ],
)
def test_what_only_names_a_denied_command_is_asked_about_and_not_denied(denial: str, line: str) -> None:
    assert decided(line, deny(denial)) is None
    the_very_line = PermissionRule(id="", tool="shell", pattern=exactly(line), allow=True)
    assert decided(line, deny(denial), the_very_line) == the_very_line


# ---- lines that cannot be read --------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["echo 'open", "if then", "ls )(", "ls ' x", "x" * 70_000 + " $(", "ls << "])
def test_what_cannot_be_parsed_is_covered_by_no_allowance_while_there_is_a_denial(line: str) -> None:
    the_very_line = PermissionRule(id="very", tool="shell", pattern=exactly(line), allow=True)
    assert find_rule([the_very_line], "shell", Subject.shell(line)) == the_very_line
    assert find_rule([ALLOW, the_very_line, deny("sudo *")], "shell", Subject.shell(line)) is None
    other_tool = deny("sudo *").model_copy(update={"tool": "background_run"})
    assert find_rule([the_very_line, other_tool], "shell", Subject.shell(line)) == the_very_line


def test_a_line_nested_too_deeply_is_asked_about() -> None:
    line = "rm x"
    for _ in range(MAX_DEPTH + 2):
        line = f"nice {line}"
    assert decided(line, deny("rm *")) is None
    assert judge([deny("rm *")], line).unread


@pytest.mark.parametrize(
    "text",
    [
        "$(" * 9_000,
        "sh -c '" * 900,
        "(" * 20_000,
        "a;" * 30_000,
        ";".join(f"a{n} x" for n in range(8_000)),
        "env " * 16_000,
        "`" * 9_001,
        "sed '" + " s/" * 20_000 + "'",
        ";".join(["sed '" + " s/" * 1_200 + "'"] * 15),
        "sed '" + ";" * 1_900 + " " * 1_900 + "'",
    ],
)
def test_a_hostile_line_is_read_in_time(text: str) -> None:
    began = time.process_time()
    assert decided(text, deny("rm *")) is not ALLOW or text.startswith(("a;", "sed"))
    assert time.process_time() - began < 5


def test_in_cmd_no_wildcard_covers_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules_module, "IN_CMD", True)
    assert decided("dir") is None
    the_very_line = PermissionRule(id="", tool="shell", pattern="dir & del x", allow=True)
    assert decided("dir & del x", the_very_line) == the_very_line


# ---- patterns that overlap ------------------------------------------------------------------------------------

TEXTS = ["".join(letters) for size in range(7) for letters in itertools.product("ab", repeat=size)]


@settings(max_examples=300, deadline=None)
@given(st.text("ab*?", max_size=3), st.text("ab*?", max_size=3))
def test_two_patterns_overlap_when_there_is_a_text_that_both_cover(one: str, other: str) -> None:
    assert overlap(one, other) is any(matches(one, text) and matches(other, text) for text in TEXTS)
