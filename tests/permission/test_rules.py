"""Rules: which calls a remembered answer covers, and that no shell trick gets past one."""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mentra_nb.authorization import PermissionRule, Subject
from mentra_nb.permission.denials import judge
from mentra_nb.permission.patterns import exactly, matches
from mentra_nb.permission.rules import find_rule, pattern_problem
from mentra_nb.permission.splitting import simple_commands


def allow(pattern: str, tool: str = "shell") -> PermissionRule:
    return PermissionRule(id=f"allow {pattern}", tool=tool, pattern=pattern, allow=True)


def deny(pattern: str, tool: str = "shell") -> PermissionRule:
    return PermissionRule(id=f"deny {pattern}", tool=tool, pattern=pattern, allow=False)


def decided(line: str, *rules: PermissionRule) -> str | None:
    rule = find_rule(rules, "shell", Subject.shell(line))
    return rule.id if rule is not None else None


# ---- patterns -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "subject", "covered"),
    [
        ("git *", "git status", True),
        ("git *", "git", False),
        ("git *", "xgit status", False),
        ("*", "", True),
        ("*", "a/b\nc", True),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("a.c", "abc", False),
        ("[ab]", "a", False),
        ("{a,b}", "a", False),
        ("!x", "y", False),
        ("src/*", "src/deep/er.py", True),
        ("[*]", "*", True),
        ("[*]", "x", False),
        ("[?]", "?", True),
        ("[?]", "x", False),
    ],
)
def test_a_star_is_any_run_a_question_mark_is_one_and_the_rest_is_literal(
    pattern: str, subject: str, covered: bool
) -> None:
    assert matches(pattern, subject) is covered


def test_a_pattern_reaches_a_key_that_follows_an_absolute_path() -> None:
    assert matches("*cargo test*", '{"command":"cargo test","working_directory":"/repo"}')


def test_json_punctuation_in_a_pattern_is_matched_literally() -> None:
    assert matches('{"body":"cargo test"*', '{"body":"cargo test","x":[1]}')


@given(st.text())
def test_a_text_matches_itself(text: str) -> None:
    assert matches(exactly(text), text)
    assert matches("*", text)


@given(st.text(alphabet="a*?[]\\"), st.text(alphabet="a*?[]\\"))
@example("x[*]", "x[y]")
@example("rm *", "rm -rf /")
def test_the_exact_pattern_of_a_text_matches_no_other(text: str, other: str) -> None:
    assert matches(exactly(text), other) is (text == other)


# ---- which rule -----------------------------------------------------------------------------------------------


def test_rule_store_empty_check_returns_none() -> None:
    assert find_rule([], "read", Subject.path("a.txt")) is None


def test_a_rule_is_for_its_tool_only() -> None:
    assert find_rule([allow("*", tool="write")], "read", Subject.path("a.txt")) is None


FILES = Subject.path("a.txt", "b.txt", "c.txt", only_read=("c.txt",))
"""A batch that changes two files and reads a third."""


@pytest.mark.parametrize(
    ("denial", "decides"),
    [
        (deny("b.txt", "files"), True),
        (deny("c.txt", "files"), True),
        (deny("b.txt", "write"), True),
        (deny("c.txt", "write"), False),
        (deny("c.txt", "read"), True),
        (deny("b.*", "read"), True),
        (deny("d.txt", "files"), False),
        (deny("b.txt", "shell"), False),
    ],
)
def test_one_denied_file_denies_a_batch_also_by_a_denial_for_another_tool_for_files(
    denial: PermissionRule, decides: bool
) -> None:
    allowance = allow("*", "files")
    assert find_rule([allowance, denial], "files", FILES) is (denial if decides else allowance)


def test_a_denial_for_a_batch_holds_for_the_tools_for_one_file_and_an_allowance_does_not() -> None:
    for tool in ("read", "write"):
        assert find_rule([deny("a/*", "files"), allow("*", tool)], tool, Subject.path("a/b")) == deny("a/*", "files")
        assert find_rule([allow("*", "files")], tool, Subject.path("a/b")) is None
    assert find_rule([deny("a/*", "write"), allow("*", "read")], "read", Subject.path("a/b")) == allow("*", "read")


CODE = ["import  os", "os . system('rm x')", "os.\uff53ystem('x')", "from os import system", "%sx rm x", "print(1)"]


@pytest.mark.parametrize("code", CODE)
def test_beside_a_denial_for_code_only_its_exact_text_is_covered(code: str) -> None:
    denial, everything = deny("*import os*", "python"), allow("*", "python")
    assert find_rule([everything], "python", Subject.text(code)) is everything
    assert find_rule([everything, denial], "python", Subject.text(code)) is None
    the_very_code = allow(exactly(code), "python")
    assert find_rule([everything, denial, the_very_code], "python", Subject.text(code)) is the_very_code
    assert find_rule([everything, deny("*", "shell")], "python", Subject.text(code)) is everything


def test_a_denial_wins_over_any_allowance() -> None:
    rules = [allow("src/secret.txt", "read"), deny("src/*", "read"), allow("*", "read")]
    found = find_rule(rules, "read", Subject.path("src/secret.txt"))
    assert found is not None
    assert found.id == "deny src/*"


def test_the_longest_pattern_wins_among_equals() -> None:
    found = find_rule(
        [allow("*", "read"), allow("src/*", "read"), allow("s*", "read")], "read", Subject.path("src/a.py")
    )
    assert found is not None
    assert found.pattern == "src/*"


def test_check_non_matching_pattern_falls_through() -> None:
    assert find_rule([allow("src/*", "read"), deny("etc/*", "read")], "read", Subject.path("docs/a.md")) is None


# ---- shell lines ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "commands"),
    [
        ("ls", ["ls"]),
        ("  git status -s  ", ["git status -s"]),
        ("cd a && make; echo done", ["cd a", "make", "echo done"]),
        ("a | b || c & d", ["a", "b", "c", "d"]),
        ("sleep 1 &", ["sleep 1"]),
        ("echo 'a; b' \"c | d\"", ["echo 'a; b' \"c | d\""]),
        ("echo 'it $(is) `literal` \\n'", ["echo 'it $(is) `literal` \\n'"]),
        ("/usr/bin/env x", ["/usr/bin/env x"]),
        ("ls *.py", ["ls *.py"]),
    ],
)
def test_a_plain_line_is_taken_apart_into_its_commands(line: str, commands: list[str]) -> None:
    assert simple_commands(line) == commands


@pytest.mark.parametrize(
    "line",
    [
        "", "   ", ";", "a ;; b", "a && && b", "| a",
        "echo $(id)", "echo `id`", "echo $HOME", 'echo "$(id)"', 'echo "`id`"', "echo \\; id",
        "cat < x", "echo x > y", "cat <(id)", "(id)", "{ id; }", "f() { id; }", "! id",
        "echo a # b", "a\nb", "a\r\nb", "a\0b", "echo 'open", 'echo "open',
        "r''m x", '"rm" x', "'r'm x", "r? x", "/bin/r* x", "[ab] x", "A=1 rm x", "PATH=/tmp rm x",
        "if true; then id; fi", "for x in a; do id; done", "time rm x", "~root/x=1 y",
    ],
)  # fmt: skip
def test_a_line_whose_commands_cannot_be_read_off_it_is_not_taken_apart(line: str) -> None:
    assert simple_commands(line) is None
    assert decided(line, allow("*")) is None


def test_every_command_of_a_line_must_be_allowed() -> None:
    assert decided("git status && git diff", allow("git *")) == "allow git *"
    assert decided("git status && rm x", allow("git *")) is None
    assert decided("git status && rm x", allow("git *"), allow("rm *")) == "allow git *"


@pytest.mark.parametrize("line", ["rm x", "ls && rm x", "ls | rm x", "ls; rm x", "sleep 1 & rm x"])
def test_one_denied_command_denies_the_line(line: str) -> None:
    assert decided(line, allow("*"), deny("rm *")) == "deny rm *"


def test_a_denial_of_a_whole_line_holds_for_lines_that_cannot_be_taken_apart() -> None:
    assert decided("echo $(id)", allow("*"), deny("*$(*")) == "deny *$(*"


@pytest.mark.parametrize("line", ["cd a && make", "echo $(id)", "rm *", "cat < x", "ls ?"])
def test_the_very_line_that_was_allowed_is_covered(line: str) -> None:
    assert decided(line, allow(exactly(line))) is not None
    assert decided(line + " ; id", allow(exactly(line))) is None
    assert decided(line + "x", allow(exactly(line))) is None


def test_a_wildcard_over_a_whole_line_does_not_cover_what_is_chained_to_it() -> None:
    assert decided("cd a && make; rm -rf x", allow("cd a && *")) is None


WORDS = ["git", "status", "marker", "./marker", "-x", "a b", "'", '"', "\\", ";", "&", "&&", "|", "||", "$(", ")", "`"]
WORDS += ["\n", "\t", " ", ">", "<", "(", "{", "}", "#", "!", "$", "if", "then", "fi", "*", "?", "=", "A=1", "~", "\r"]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where `git` does nothing and `marker` leaves a trace."""
    folder = tmp_path_factory.mktemp("workshop")
    for name, script in (("git", "#!/bin/sh\nexit 0\n"), ("marker", f"#!/bin/sh\n: > {folder}/ran\n")):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.slow
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=7), glue=st.sampled_from(["", " "]))
@example(words=["\n", "marker"], glue="")
@example(words=[";", "marker"], glue=" ")
@example(words=["$(", "marker", ")"], glue="")
@example(words=["'", ";", "'", ";", "marker"], glue="")
@example(words=['"', "`", "marker", "`", '"'], glue="")
@example(words=["\\", "'", ";", "marker", "'"], glue="")
@example(words=["#", "\n", "marker"], glue=" ")
def test_what_a_wildcard_covers_never_runs_another_command(words: list[str], glue: str, workshop: Path) -> None:
    """The real shell is the judge: an allowed line of `git` runs nothing but `git`."""
    line = "git " + glue.join(words)
    if decided(line, allow("git *")) is None:
        return
    trace = workshop / "ran"
    subprocess.run(
        ["/bin/sh", "-c", line],
        cwd=workshop,
        env={"PATH": str(workshop)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=10,
        check=False,
    )
    assert not trace.exists(), line


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=6), glue=st.sampled_from(["", " "]))
@example(words=["mark", "er"], glue="")
@example(words=["'", "'", "marker"], glue="")
@example(words=["A=1", "marker"], glue=" ")
@example(words=["if", "git", ";", "then", "marker", ";", "fi"], glue=" ")
@example(words=["mar", "?", "er", "\t", "x"], glue="")
def test_a_denied_command_never_runs_under_an_allowance_for_everything(
    words: list[str], glue: str, workshop: Path
) -> None:
    line = glue.join(words)
    rule = find_rule([allow("*"), deny("*marker*")], "shell", Subject.shell(line))
    if rule is None or not rule.allow or "\0" in line:
        return
    trace = workshop / "ran"
    subprocess.run(
        ["/bin/sh", "-c", line],
        cwd=workshop,
        env={"PATH": str(workshop)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=10,
        check=False,
    )
    assert not trace.exists(), line


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file `push`, and programs in `bin`: a `git` that leaves a trace when it pushes, and wrappers."""
    base = tmp_path_factory.mktemp("remote")
    folder = base / "bin"
    folder.mkdir()
    (base / "push").touch()
    (folder / "git").write_text(
        '#!/bin/sh\nwhile :; do case "$1" in -C|-c) shift 2;; -*) shift;; *) break;; esac; done\n'
        f'[ "$1" = push ] && : > {folder}/ran\n'
    )
    (folder / "git").chmod(0o755)
    for name in ("env", "sh", "nohup", "nice"):
        if (found := shutil.which(name)) is not None:
            (folder / name).symlink_to(found)
    return base


WRAPPED = [
    *("git", "push", "pu", "sh", "-C", ".", "-c", "--", "env", "nohup", "command", "exec", "nice", "X=1", "./git"),
    *(
        " ",
        "\t",
        "'",
        '"',
        "''",
        '""',
        "\\",
        "?",
        "*",
        "[p]",
        "[!x]",
        "/",
        "~",
        ";",
        "&",
        "&&",
        "|",
        "\n",
        "\r",
        "#",
        "{",
        "}",
    ),
    *("$IFS", "(", ")", ">", "!", "%", "=", ",", "+", "\x0b", "\xa0"),
]


@pytest.mark.slow
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.sampled_from(WRAPPED), min_size=1, max_size=8), glue=st.sampled_from(["", " "]))
@example(words=["pu", "''", "sh"], glue="")
@example(words=["-C", ".", "push"], glue=" ")
@example(words=["pu", "?", "?"], glue="")
@example(words=["*"], glue=" ")
@example(words=["[p]", "*"], glue="")
@example(words=["-C", ".", "*"], glue=" ")
@example(words=["--", "?", "?", "?", "?"], glue="")
@example(words=["-c", "a=b", "--no", "*"], glue=" ")
@example(words=[".", ";", "env", "git", "push"], glue=" ")
@example(words=[".", ";", "sh", "-c", "'git push'"], glue=" ")
@example(words=["p\\u\\sh"], glue=" ")
@example(words=["'pu'\"sh\""], glue=" ")
def test_no_wildcard_runs_the_words_of_a_denial_however_they_are_written(
    words: list[str], glue: str, remote: Path
) -> None:
    """The real shell is the judge. A line that never ends is killed, and judged by what it ran until then."""
    line = "git " + glue.join(words)
    rule = find_rule([allow("*"), allow("git *"), deny("git push*")], "shell", Subject.shell(line))
    if rule is None or not rule.allow:
        return
    (remote / "bin" / "ran").unlink(missing_ok=True)
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(
            ["/bin/sh", "-c", line],
            cwd=remote,
            env={"PATH": str(remote / "bin")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=5,
            check=False,
        )
    assert not (remote / "bin" / "ran").exists(), line


def test_every_part_of_a_subject_must_be_allowed_and_one_denied_part_is_enough() -> None:
    rules = [allow("src/*", "files"), allow("docs/*", "files"), deny("*/secret", "files")]
    assert find_rule(rules, "files", Subject.path("src/a", "docs/b")) == rules[0]
    assert find_rule(rules, "files", Subject.path("src/a", "etc/b")) is None
    assert find_rule(rules, "files", Subject.path("src/a", "docs/secret")) == rules[2]


def test_a_call_without_a_subject_is_covered_by_a_rule_for_everything_only() -> None:
    assert find_rule([allow("a*", "read")], "read", Subject()) is None
    assert find_rule([deny("*", "read"), allow("*", "read")], "read", Subject()) == deny("*", "read")


KEYWORDS = [
    "if",
    "then",
    "elif",
    "else",
    "fi",
    "for",
    "while",
    "until",
    "do",
    "done",
    "case",
    "esac",
    "in",
    "function",
    "select",
    "time",
]


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_a_word_of_the_shells_grammar_is_not_a_command(keyword: str) -> None:
    assert simple_commands(f"{keyword} x") is None


@pytest.mark.parametrize(
    "line",
    [
        "git  push",
        "git 'push'",
        'git "push"',
        "git pu''sh",
        "git status; git  push",
        "git\tpush x",
        "(git push)",
        "git p\\ush",
        "git status\ngit  push",
        "git status\r\ngit 'push'",
        "git 'push' 'x",
        "git push>x",
        "git push&",
    ],
)
def test_a_denial_is_matched_against_the_words_the_shell_sees(line: str) -> None:
    rules = [allow("*"), allow("git *"), deny("git push*")]
    assert find_rule(rules, "shell", Subject.shell(line)) == rules[2]


@pytest.mark.parametrize(
    ("denied", "line"),
    [
        ("git push*", "git -C . push"),
        ("git push*", "git --no-pager -c a=b push origin"),
        ("git push*", "/usr/bin/git push"),
        ("git push*", "env git push"),
        ("rm *", "/bin/rm x"),
        ("rm *", "timeout 5 rm x"),
        ("rm *", "ls | xargs rm"),
        ("rm *", "sh -c 'true;rm x'"),
        ("sudo*", "env sudo ls"),
        ("git push*", "sh -c 'git pu\"\"sh'"),
        ("git push*", "sh -c 'g\\it push'"),
        ("git push*", "sh -c 'echo push; git push'"),
        ("git push*", "env -S'git push'"),
    ],
)
def test_a_denial_judges_what_a_line_would_run(denied: str, line: str) -> None:
    rules = [allow("*"), allow("git *"), allow(exactly(line)), deny(denied)]
    assert find_rule(rules, "shell", Subject.shell(line)) == rules[3]


@pytest.mark.parametrize(
    ("denied", "line"),
    [
        ("git push*", "git pus?"),
        ("git push*", "git *"),
        ("rm *", "env r[m] x"),
        ("git push*", "git p[[:lower:]]sh"),
        ("git push*", "git []p]ush"),
        ("git push*", "git [[.p.]][a-z]sh"),
        ("git push*", "ls | xargs git"),
        ("git push*", "cat lines | sh"),
        ("git push*", "my-wrapper --now git push"),
        ("git push --force*", "git push --forc"),
    ],
)
def test_no_wildcard_covers_a_line_that_may_run_what_is_denied(denied: str, line: str) -> None:
    rules = [allow("*"), allow("git *"), deny(denied)]
    assert find_rule(rules, "shell", Subject.shell(line)) is None
    assert judge([rules[2]], line).possible == rules[2]
    the_very_line = allow(exactly(line))
    assert find_rule([*rules, the_very_line], "shell", Subject.shell(line)) == the_very_line


@pytest.mark.parametrize(
    ("denied", "line"),
    [
        ("git push*", "git add *"),
        ("git push*", "git status"),
        ("rm *", "wc -l *.csv"),
        ("rm *", "ls *"),
        ("rm *", "form"),
        ("git push*", "git log --format='[x] [y]'"),
    ],
)
def test_a_command_without_the_words_of_a_denial_stays_allowed(denied: str, line: str) -> None:
    assert decided(line, allow("*"), deny(denied)) == "allow *"


@pytest.mark.parametrize(
    ("denied", "line"),
    [("git  push*", "git push"), ("rm 'my file'", 'rm "my file"'), ("rm 'my file'", "rm my\\ file"), ("rm\tx", "rm x")],
)
def test_the_pattern_of_a_denial_is_read_as_the_shell_reads_words(denied: str, line: str) -> None:
    assert decided(line, allow("*"), deny(denied)) == f"deny {denied}"


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["*curl*|*sh*", "*rm*-rf*/*", "*" * 30 + "x", "?*" * 20 + "!"])
def test_matching_takes_linear_time(pattern: str) -> None:
    texts = ["curl" * 5_000, "rm -rf " * 3_000, "a" * 20_000, "echo " + "[" * 20_000, "echo " + "*[a]" * 5_000]
    began = time.process_time()
    for text in texts:
        matches(pattern, text)
        find_rule([allow("*"), deny(pattern)], "shell", Subject.shell(text))
    assert time.process_time() - began < 5


@pytest.mark.parametrize("pattern", ["~/.ssh/*", "./.ssh/*", "x/../.ssh/*", ".ssh/*", "HOME/.ssh/*"])
def test_a_pattern_on_paths_is_normalised_as_the_paths_are(pattern: str) -> None:
    home = str(Path.home())
    subject = Subject.path(".ssh/id_rsa", absolute=(f"{home}/.ssh/id_rsa",))
    rule = deny(pattern.replace("HOME", home), "read")
    assert find_rule([allow("*", "read"), rule], "read", subject) == rule


@pytest.mark.parametrize("pattern", ["secrets", "./secrets", "BASE/secrets", "BASE/link", "BASE/link/*", "BASE/*ts"])
def test_the_denial_of_a_folder_holds_for_all_that_is_in_it_also_where_links_lead(tmp_path: Path, pattern: str) -> None:
    base = tmp_path.resolve()
    (base / "secrets").mkdir()
    (base / "link").symlink_to(base / "secrets")
    subject = Subject.path("secrets/a/key", absolute=(f"{base}/secrets/a/key",))
    rule = deny(pattern.replace("BASE", str(base)), "read")
    assert find_rule([allow("*", "read"), rule], "read", subject) == rule
    other = Subject.path("secrets-of-others", absolute=(f"{base}/secrets-of-others",))
    assert find_rule([allow("*", "read"), rule], "read", other) != rule


@pytest.mark.parametrize("pattern", ["./*", "./", "./.env", "././*", ".e*"])
def test_an_allowance_within_the_working_folder_is_not_for_what_is_outside(pattern: str) -> None:
    outside = Subject.path("/data/.env", absolute=("/data/.env",))
    assert find_rule([allow(pattern, "write")], "write", outside) is None
    inside = Subject.path(".env", absolute=("/home/me/project/.env",))
    assert (find_rule([allow(pattern, "write")], "write", inside) is not None) is (pattern != "./")


def test_an_allowance_does_not_follow_links_and_is_not_for_what_is_in_a_folder(tmp_path: Path) -> None:
    base = tmp_path.resolve()
    (base / "real").mkdir()
    (base / "link").symlink_to(base / "real")
    subject = Subject.path("real/a", absolute=(f"{base}/real/a",))
    assert find_rule([allow(f"{base}/link/*", "read"), allow("real", "read")], "read", subject) is None


@pytest.mark.parametrize(
    ("pattern", "kind", "is_useless"),
    [
        ("$HOME/.ssh/*", "path", True),
        ("../other/*", "path", True),
        ("x/../../other/*", "path", True),
        ("../..env", "path", True),
        ("..env", "path", False),
        ("${HOME}/x", "path", True),
        ("$x", "path", False),
        ("", "text", True),
        ("src/", "path", True),
        ("src/*", "path", False),
        ("echo *; sleep 1", "shell", True),
        ("echo a; sleep 1", "shell", False),
        ("echo *", "shell", False),
        ("*", "shell", False),
    ],
)
def test_a_rule_that_can_never_apply_is_named(pattern: str, kind: str, is_useless: bool) -> None:
    assert (pattern_problem(pattern, kind, allow=True) is not None) is is_useless
