"""What a pattern covers beyond what it looks like, and the patterns that are proposed for a call."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kits.denied_lines import spellings
from kits.harmless_lines import ASKED, LINES

from mentra_nb.authorization import (
    PermissionQuestion,
    PermissionRule,
    Subject,
    ToolAuthorizationPreview,
    ToolAuthorizationRequest,
)
from mentra_nb.permission.advice import how_to_allow
from mentra_nb.permission.breadth import _rows, breadth
from mentra_nb.permission.patterns import exactly, has_wildcard, matches
from mentra_nb.permission.proposals import proposed
from mentra_nb.permission.rules import find_rule


def rule(pattern: str, *, allow: bool = True) -> PermissionRule:
    return PermissionRule(id=pattern, tool="shell", pattern=pattern, allow=allow)


def request(subject: Subject, tool: str = "shell") -> ToolAuthorizationRequest:
    return ToolAuthorizationRequest(
        agent_id="a",
        agent_name="a",
        tool_call_id="c",
        tool_name=tool,
        preview=ToolAuthorizationPreview(working_directory="/work"),
        subject=subject,
    )


def question(subject: Subject, tool: str = "shell") -> PermissionQuestion:
    times = {"asked_at": 0.0, "deadline": 1.0}
    return PermissionQuestion(
        **vars(request(subject, tool)), request_id="q", session_id="s", description="", arguments_hash="", **times
    )


# ---- breadth --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "covered"),
    [
        ("git *", "git -c x=y log"),
        ("git * main", "git bisect run x main"),
        ("git log*", "git log --output=x"),
        ("find *", "find . -exec x ;"),
        ("find . -name*", "find . -name x -delete"),
        ("/usr/bin/find *", "find . -exec x ;"),
        ("tar -tf *", "tar -tf x --checkpoint-action=exec=x"),
        ("awk *", "awk 'BEGIN { system(\"x\") }'"),
        ("sed *", "sed 'w x'"),
        ("sed -n 1p *", "sed -n 1p -i x"),
        ("rg *", "rg --pre=x y"),
        ("sort *", "sort -o x y"),
        ("sort -n x.csv*", "sort -n x.csv -o y"),
        ("python *", "python -c x"),
        ("make *", "make x"),
        ("npm run *", "npm run x"),
        ("ssh *", "ssh x y"),
        ("curl *", "curl x -o y"),
        ("env *", "env x"),
        ("xargs *", "xargs x"),
        ("sh -c *", "sh -c x"),
        ("timeout 5 *", "timeout 5 x"),
        ("uniq *", "uniq x y"),
    ],
)
def test_a_pattern_that_covers_more_than_it_looks_like_says_so(pattern: str, covered: str) -> None:
    assert matches(pattern.removeprefix("/usr/bin/"), covered)
    said = breadth(pattern, "shell")
    assert said is not None
    assert covered.split()[0] in said
    assert re.search("can (run other programs|write files)$", said)


@pytest.mark.parametrize(
    "pattern",
    [
        "git status*",
        "ls *",
        "cat *",
        "wc -l *.csv",
        "grep -n *",
        "head *",
        "python script.py *",
        "npm ls*",
        "git -c x=y log",
    ],
)
def test_a_pattern_that_covers_what_it_looks_like_is_not_called_broad(pattern: str) -> None:
    assert breadth(pattern, "shell") is None


def test_a_wildcard_for_the_program_is_told() -> None:
    assert breadth("*", "shell") == "covers every command"
    assert breadth("**", "path") == "covers every file"
    assert breadth("*", "text") == "covers every call"
    assert "gawk" in str(breadth("ga*", "shell"))
    assert breadth("data/*", "path") is None


def test_each_row_of_the_table_is_met_by_a_pattern_for_its_program_and_by_no_exact_one() -> None:
    rows = {(name, pattern) for name, _, patterns, _ in _rows() for pattern in patterns if pattern != name}
    assert len(rows) > 400
    for name, pattern in rows:
        assert breadth(pattern, "shell") is not None, pattern
        assert breadth(f"{name} *", "shell") is not None, pattern
        assert breadth(exactly(pattern.replace("*", "x")), "shell") is None, pattern


# ---- proposals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "patterns"),
    [
        (Subject.shell("git status -s"), ["git status -s", "git status *", "git *"]),
        (Subject.shell("git status"), ["git status", "git status*", "git *"]),
        (Subject.shell("make"), ["make", "make*", "*"]),
        (Subject.shell("ls *.csv"), ["ls [*].csv", "ls [*].csv*", "ls *"]),
        (Subject.shell("git add a && git commit -m b"), ["git add a && git commit -m b", "git *", "*"]),
        (Subject.shell("ls && pwd"), ["ls && pwd", "*"]),
        (Subject.shell("echo $HOME"), ["echo $HOME"]),
        (Subject.path("data/in/a.csv"), ["data/in/a.csv", "data/in/*.csv", "data/in/*"]),
        (Subject.path("a.csv"), ["a.csv", "*.csv", "*"]),
        (Subject.path(".env", protected=(".env",)), [".env"]),
        (Subject.path("a", "b"), []),
        (Subject.text("x[1]?"), ["x[1][?]", "*"]),
        (Subject(), ["*"]),
    ],
)
def test_the_narrowest_pattern_is_proposed_and_two_wider_ones(subject: Subject, patterns: list[str]) -> None:
    assert [each.pattern for each in proposed(question(subject))] == patterns


def test_beside_a_denial_only_what_still_covers_the_call_is_proposed() -> None:
    denials = [rule("git push*", allow=False)]
    line = Subject.shell("no-such-wrapper git push")
    assert [each.pattern for each in proposed(question(line), denials)] == ["no-such-wrapper git push"]
    assert proposed(question(Subject.shell("git push")), denials) == []
    assert proposed(question(Subject.shell("ls 'open")), denials) == []


@given(st.sampled_from([*LINES, *ASKED]), st.sampled_from([None, "rm *", "git push*"]))
def test_every_proposal_covers_the_call(line: str, denied: str | None) -> None:
    rules = [rule(denied, allow=False)] if denied else []
    subject = Subject.shell(line)
    found = proposed(question(subject), rules)
    assert found[0].pattern == exactly(line)
    for each in found:
        allowed = rule(each.pattern)
        assert find_rule([allowed, *rules], "shell", subject) is allowed
        assert each.breadth is None or has_wildcard(each.pattern)


# ---- advice ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("denied", [None, "rm *"])
def test_the_pattern_in_the_advice_is_the_one_that_covers_the_call(denied: str | None) -> None:
    rules = [rule("echo *"), *([rule(denied, allow=False)] if denied else [])]
    advised = 0
    for line in [*LINES, *ASKED, "echo 'open", "ls ' x", *(line for _, line in spellings())]:
        subject = Subject.shell(line)
        if (found := find_rule(rules, "shell", subject)) is not None:
            assert found.allow is False or line.startswith("echo")
            continue
        advice = how_to_allow(request(subject), rules, "OTHERWISE")
        calls = re.findall(r"mn\.allow\(('.+?'), pattern=(.+)\), or OTHERWISE", advice, re.DOTALL)
        if calls:
            [(_, pattern)] = calls
            allowed = rule(eval(pattern))
            assert find_rule([allowed, *rules], "shell", subject) is allowed, line
            advised += 1
        else:
            assert "no rule covers it while there is a denial" in advice, line
            assert find_rule([rule(exactly(line)), *rules], "shell", subject) is None
    assert advised > 200


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("echo $HOME", "it has $, so no pattern covers this line, not even 'echo *', only its exact text"),
        ("echo a > b", "it has >, so no pattern covers this line, not even 'echo *', only its exact text"),
        ("echo a\\ b", "it has \\, so no pattern covers this line, not even 'echo *', only its exact text"),
        ("xargs $y", "it has $, so no pattern covers this line, only its exact text"),
    ],
)
def test_the_advice_says_why_a_rule_that_looks_right_does_not_fit(line: str, why: str) -> None:
    assert how_to_allow(request(Subject.shell(line)), [rule("echo *")], "OTHERWISE").startswith(f"{why}; allow it")
