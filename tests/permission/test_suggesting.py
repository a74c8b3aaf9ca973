"""Rules from a person's answers: as narrow as what was allowed, nothing that was denied, and most repeats saved."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from kits.decisions import decisions

from mentra_nb.authorization import PermissionRule, Subject
from mentra_nb.permission.patterns import matches
from mentra_nb.permission.rules import find_rule
from mentra_nb.permission.suggesting import LEAST, Decided, also_covers, suggest
from mentra_nb.permission.typical import HARMFUL, HARMLESS

SEEDS = range(int(os.environ.get("MENTRA_FAULT_KILLS", "3")))
"""`MENTRA_FAULT_KILLS` makes it longer."""
COUNT = 1_200


def shell(*lines: str, allowed: bool = True) -> list[Decided]:
    return [Decided("shell", Subject.shell(line), allowed) for line in lines]


def paths(*names: str, allowed: bool = True) -> list[Decided]:
    return [Decided("write", Subject.path(name), allowed) for name in names]


def patterns(calls: list[Decided], rules: list[PermissionRule] | None = None) -> list[str]:
    return [each.pattern for each in suggest(calls, rules or [])]


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (["git status"], []),
        (["git status", "git status"], ["git status"]),
        (["head -5 a.csv", "head -7 b.csv"], ["head -? *.csv"]),
        (["head -5 a.csv", "head -25 b.csv"], []),
        (["head -n 5 data/x_1.csv", "head -n 5 data/x_2.csv"], ["head -n 5 data/x_?.csv"]),
        (["cat data/x_a.csv", "cat data/x_bc.csv"], ["cat data/x_*.csv"]),
        (["cat data/a.csv", "cat notes/b.csv"], []),
        (["cat a.csv", "cat a.txt"], []),
        (["cat a", "cat b"], []),
        (["cat .a.env", "cat .b.env"], []),
        (["grep 'a b' x.py", "grep 'c' y.py"], ["grep '*' *.py"]),
        (["pytest -q tests/test_a.py", "pytest -q tests/test_b.py"], ["pytest -q tests/test_*.py"]),
        (["pytest -p a.py", "pytest -p b.py"], []),
        (["python x.py --month 2026-03", "python x.py --month 2026-04"], ["python x.py --month 2026-??"]),
        (["python x.py --month 2026-03", "python y.py --month 2026-04"], []),
        (["python -c 'a'", "python -c 'b'"], []),
        (["rm a.tmp", "rm b.tmp"], []),
        (["rm a.tmp", "rm a.tmp"], ["rm a.tmp"]),
        (["kill 101", "kill 102"], []),
        (["git push origin a.b", "git push origin c.b"], []),
        (["git log -5", "git log -7"], ["git log -?"]),
        (["ls *.csv", "ls *.csv"], ["ls [*].csv"]),
        (["ls $HOME", "ls $HOME"], ["ls $HOME"]),
        (["cat a.csv > b.csv", "cat c.csv > d.csv"], []),
        (["cd src && wc -l a.py", "cd src && wc -l b.py"], ["cd src", "wc -l *.py"]),
        (["cd src && make x", "cd src && make y"], []),
        (["cat  a.csv", "cat  b.csv"], []),
        (["tool conf.ini 101", "tool conf.ini 102"], []),
        (["python -Wx.y 1", "python -Wx.y 2"], []),
        (["jq --from-file=a.jq x.json", "jq --from-file=b.jq x.json"], []),
        (["wc -l a*.csv", "wc -l b*.csv"], []),
        (["ls", "ls && make x"], []),
    ],
)
def test_a_pattern_is_as_narrow_as_what_was_allowed(lines: list[str], wanted: list[str]) -> None:
    assert patterns(shell(*lines)) == wanted


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["notes/a.md", "notes/b.md"], ["notes/*.md"]),
        (["a.md", "b.md"], ["./*.md"]),
        (["notes/a.md", "other/b.md"], []),
        (["notes/a.md", "notes/a.md"], ["notes/a.md"]),
        (["notes/.a.md", "notes/.b.md"], []),
        (["../a.md", "../b.md"], []),
        (["../a.md", "../a.md"], []),
        (["Makefile", "LICENSE"], []),
        (["/srv/x/a.csv", "/srv/x/b.csv"], ["/srv/x/*.csv"]),
    ],
)
def test_files_are_alike_in_one_folder_with_one_ending(names: list[str], wanted: list[str]) -> None:
    assert patterns(paths(*names)) == wanted


def test_texts_of_other_tools_are_covered_word_for_word() -> None:
    calls = [Decided("send", Subject.text(text), True) for text in ("a@x", "b@x", "a@x", "c*")]
    assert [(each.tool, each.pattern) for each in suggest([*calls, calls[-1]])] == [("send", "a@x"), ("send", "c[*]")]


def test_nothing_that_was_denied_is_covered() -> None:
    twice = shell("cat data/a.csv", "cat data/b.csv", "make", "make")
    assert patterns([*twice, *shell("cat data/c.csv", allowed=False)]) == ["make"]
    assert patterns([*twice, *shell("make", allowed=False)]) == ["cat data/*.csv"]
    again = shell("cat data/a.csv")
    assert patterns([*twice, *again, *shell("cat data/c.csv", allowed=False)]) == ["cat data/a.csv", "make"]
    assert patterns([*twice, *shell("make && cat data/c.csv", allowed=False)]) == []
    assert sorted(patterns([*twice, *shell("make && rm x", allowed=False)])) == ["cat data/*.csv", "make"]
    assert patterns([*paths("n/a.md", "n/b.md"), *paths("n/c.md", allowed=False)]) == []
    assert patterns([*paths("a.md", "b.md"), *paths("c.md", allowed=False)]) == []


def test_what_a_rule_decides_already_is_not_suggested() -> None:
    allow = PermissionRule(id="1", tool="shell", pattern="git *", allow=True)
    deny = PermissionRule(id="2", tool="shell", pattern="make*", allow=False)
    assert patterns(shell("git status", "git status", "make", "make", "ls", "ls"), [allow, deny]) == ["ls"]


def test_what_commands_changed_in_named_folders_is_kept_there() -> None:
    calls = [Decided("shell", Subject.shell("make"), True, ("/p/build",)) for _ in range(2)]
    (found,) = suggest([*calls, *shell("make")])
    assert (found.pattern, found.folders, found.saved) == ("make", ("/p/build",), (0, 1))


def test_a_line_is_saved_only_when_each_of_its_commands_is_covered() -> None:
    found = suggest(shell("ls && make", "ls && make deploy", "ls", "ls"))
    assert [(each.pattern, each.saved) for each in found] == [("ls", (2, 3))]


def test_what_a_pattern_also_covers_is_told() -> None:
    assert also_covers("git *", ["git status"])[:2] == ["git status -s", "git log"]
    assert {"git push --force", "git reset --hard"} <= set(also_covers("git *", []))
    assert also_covers("git status", ["git status"]) == []
    assert not set(HARMLESS) & set(HARMFUL)


@pytest.mark.parametrize("seed", SEEDS)
def test_most_repeats_are_saved_and_nothing_denied_is_allowed(seed: int) -> None:
    calls = list(decisions(seed, COUNT))
    past, future = calls[: COUNT // 2], calls[COUNT // 2 :]
    for learnt in (past, [(call, kind) for call, kind in past if call.allowed]):  # also where no denial was ever seen
        found = suggest([call for call, _ in learnt])
        rules = [each.rule() for each in found]
        assert [str(call.subject) for call, _ in calls if not call.allowed and covered(rules, call)] == []
        times = Counter(kind for call, kind in past if call.allowed)
        repeats = [call for call, kind in future if call.allowed and times[kind] >= LEAST]
        saved = sum(covered(rules, call) for call in repeats)
        assert len(repeats) > 300
        assert saved / len(repeats) >= 0.7, (saved, len(repeats))
        wide = [each for each in found if each.tool == "shell" and any(matches(each.pattern, line) for line in HARMFUL)]
        assert [each for each in wide if "*" in each.pattern or "?" in each.pattern] == []


def covered(rules: list[PermissionRule], call: Decided) -> bool:
    return find_rule(rules, call.tool, call.subject) is not None
