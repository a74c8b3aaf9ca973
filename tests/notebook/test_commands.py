"""The table of subcommands and options: commands and questions told apart, help and completion."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mentra_nb.errors import ConfigurationError
from mentra_nb.notebook.commands.command import Command, Context
from mentra_nb.notebook.commands.help import help_text
from mentra_nb.notebook.commands.table import COMMANDS, OPTIONS
from mentra_nb.notebook.grammar import Parsed, completions, parse
from mentra_nb.notebook.typed import parse_answer, parse_numbered, refused_answer

READY = [command.name for command in COMMANDS]


RULES = {"suggest": None, "accept": None, "revoke": None, "id": None}


class Names:
    def functions(self) -> list[str]:
        return ["revenue", "costs"]

    def models(self) -> list[str]:
        return ["ollama/", "quick"]

    def commands(self) -> list[str]:
        return READY

    def rules(self) -> list[str]:
        return ["rule-3f2a9c", "rule-77e371"]

    def sessions(self, *, unnamed: bool) -> list[str]:
        return ["report", "session-12ab34"] if unnamed else ["report"]

    def session_ids(self) -> list[str]:
        return ["session-77aa01", "session-12ab34"]


def named(line: str) -> str | None:
    """Return the name of the subcommand, or `None` for a question."""
    command = parse(line).command
    return command.name if command is not None else None


@pytest.mark.parametrize(
    ("line", "name", "words"),
    [
        ("help", "help", {"word": None}),
        ("models qwen --all", "models", {"text": "qwen", "all": " --all"}),
        ("alias quick ollama/qwen3", "alias", {"name": "quick", "target": "ollama/qwen3"}),
        ("rules revoke rule-1a", "rules", {**RULES, "revoke": " revoke rule-1a", "id": "rule-1a"}),
        ("rules revoke  xyz", "rules", {**RULES, "revoke": " revoke  xyz", "id": "xyz"}),
        ("rules revoke", "rules", {**RULES, "revoke": " revoke", "id": None}),
        ("rules suggest", "rules", {**RULES, "suggest": " suggest"}),
        ("rules accept 3", "rules", {**RULES, "accept": "3"}),
        ("jobs", "jobs", {"stop": None, "id": None}),
        ("trust", "trust", {"which": None, "revoke": None, "number": None}),
        ("trust 12", "trust", {"which": "12", "revoke": None, "number": None}),
        ("trust all", "trust", {"which": "all", "revoke": None, "number": None}),
        ("trust revoke 2", "trust", {"which": None, "revoke": " revoke 2", "number": "2"}),
        ("jobs stop 2", "jobs", {"stop": " stop 2", "id": "2"}),
        ("jobs stop bg-12", "jobs", {"stop": " stop bg-12", "id": "bg-12"}),
        ("stop --all", "stop", {"all": " --all"}),
        ("help --model", "help", {"word": "--model"}),
        ("usage  --by   day  # since when?", "usage", {"by": "day"}),
        ("deny because it is the #1 risk", "deny", {"which": None, "reason": "it is the #1 risk"}),
        ("log SELECT 1", "log", {"sql": "SELECT 1"}),
        ("", "", {}),
    ],
)
def test_a_line_that_wholly_fits_is_a_command(line: str, name: str, words: dict[str, str | None]) -> None:
    parsed = parse(line)
    assert parsed.command is not None
    assert parsed.command.name == name
    assert parsed.words == words


@pytest.mark.parametrize(
    "line",
    [
        "stop writing so long",
        "stop --all that noise",
        "jobs stop being fun when?",
        "allow me to explain",
        "models are small programs",
        "log the problem",
        "log selected items somewhere",
        "undo the sort",
        "rules suggest themselves here?",
        "trust me, sort it by date",
        "trust all of these numbers?",
        "fix the bug in cell 3",
        "say it again",
        "code for a bubble sort",
        "history of the sort algorithm",
        "export the frame to Excel",
        "forget it",
        "team sports",
        "diff the two frames",
        "good morning",
        "hide the axis",
        "edit 2 files",
        "bad gateway, why?",
        "good code because it is short?",
        "fork the repository",
        "-- history",
        "-- allow",
    ],
)
def test_prose_that_begins_like_a_command_is_a_question(line: str) -> None:
    parsed = parse(line)
    assert parsed.command is None
    assert parsed.prompt == line.removeprefix("-- ")


@pytest.mark.parametrize("line", ["log selct 1", "log  SLECT ts from turns"])
def test_a_mistyped_query_is_not_a_question(line: str) -> None:
    with pytest.raises(ConfigurationError, match="did you mean %mentra log select"):
        parse(line)
    assert parse(f"-- {line}").prompt == line
    assert parse(line, "").prompt == line


NOTES = ["", "  # note"]
VALUES = ["a=1", 'city="Santa # Fe"', "city='a b'", "a= b=2", "'by sea'=yes", "color=#fff"]
SAID = ["x # y", "# no", "it is #1", "a b=1", 'it\'s "so" # or not']
FITTING = [
    *(
        ("answer", f"answer{n} {each}{note}", {"values": f" {each}"})
        for n in ("", " 1")
        for each in VALUES
        for note in NOTES
    ),
    *((name, f"{name} because {each}", {"reason": each}) for name in ("allow", "deny", "good", "bad") for each in SAID),
    *(
        (name, f"{name} 99 because {each}", {"which": "99", "reason": each})
        for name in ("allow", "deny")
        for each in SAID
    ),
    *(
        ("allow", f"allow 2 always {each}{note}", {"pattern": each})
        for each in ("git *", 'echo "a # b"')
        for note in NOTES
    ),
    ("allow", "allow always * because x # y", {"pattern": "*", "reason": "x # y"}),
    *(("compact", f"compact keep {each}", {"matters": each}) for each in SAID),
    *(
        (line.split()[0], f"{line}  # note", {})
        for line in ("allow", "deny 3", "undo", "fork copy", "forget", "allow once")
    ),
    *(("log", f"log {each}", {"sql": each}) for each in ("select '# a'", 'select "a # b" from turns')),
]
"""Lines that are carried out: the subcommand and words of each."""
NUMBERS = ["0", "100", "-1", "#1", "1 2", "1, 2", "1 and 2", "1.", "1 --all", "--all", "007"]
REFUSED = [
    *(f"answer{values}" for values in ("", " 1", " 0 a=1", " 100 a=1", " city=Santa Fe", " 1 city=Santa Fe", " a = 1")),
    *(
        f"answer {values}"
        for values in ("a=1 a=2", 'a=1 "a"=2', "a=1 b=2 a=1", 'city="Oslo', "1 2 a=1", "=1", "a=1 #b")
    ),
    *(f"{name} {number}" for name in ("allow", "deny", "undo", "forget") for number in NUMBERS),
    *(f"{name} {rest}" for name in ("allow", "deny") for rest in ("because", "1 because", "all", "It.", "'x'", "both")),
    *("allow 0 always *", "allow 100 always *", "allow once and for all", "allow 1 once please", "deny 1 always rm *"),
    *("Allow", "ALLOW 1", "Deny because it is so", "Allow always *", "allow\xa01"),
    *("undo run-0199abc1 please", "undo 'run-1'", "forget session-1 session-2", "forget 'x'", "fork 'x'", "fork a=1"),
    *(
        "jobs stop 0",
        "rules revoke 3 4",
        "trust 0",
        "edit 0",
        "memories pin",
        "compact keep",
        "hide #3",
        "good because",
    ),
]
"""Lines that look like a subcommand and do not fit."""
PROSE = [
    *(
        "allow me to explain",
        "allow 2 people in",
        "deny it or admit it",
        "deny the claim in cell 3",
        "answer in French",
    ),
    *("answer 3 questions about it", "undo the last 3 changes", "forget 3 of them", "fork 2 repositories", "say it"),
    *("forget run-time errors", "allow users to log in = good?", "forget it", "answers 1"),
]
"""Lines that are asked."""


def test_there_are_100_spellings() -> None:
    assert len({*(line for _, line, _ in FITTING), *REFUSED, *PROSE}) >= 100


@pytest.mark.parametrize(("name", "line", "words"), FITTING)
def test_a_sign_in_quotes_or_in_ones_own_words_is_no_comment(name: str, line: str, words: dict[str, str]) -> None:
    assert named(line) == name
    assert parse(line).words.items() >= words.items()
    assert not words or "# note" not in str(parse(line).words)


@pytest.mark.parametrize("line", REFUSED)
def test_a_line_that_looks_like_a_subcommand_and_does_not_fit_is_not_asked(line: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is not carried out|not a subcommand"):
        parse(line)
    assert parse(f"-- {line}").prompt == line
    assert parse_answer(f"%mentra {line}") is parse_numbered(f"%mentra {line}") is None


@pytest.mark.parametrize("line", PROSE)
def test_prose_that_has_numbers_or_signs_is_asked(line: str) -> None:
    assert named(line) is None or line.startswith("say")
    assert refused_answer(f"%mentra {line}") is None


def test_below_the_cell_magic_nothing_is_a_command() -> None:
    assert parse("allow", "").command is None
    assert parse("", "undo").prompt == "undo"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("export notes.ipynb", {"path": "notes.ipynb", "quoted": None, "overwrite": None}),
        ('export "my notes.md" --overwrite', {"path": None, "quoted": "my notes.md", "overwrite": " --overwrite"}),
        ("fork second-try", {"name": "second-try"}),
        ("forget session-12ab", {"id": "session-12ab"}),
        ("history regression", {"word": "regression", "text": None}),
        ("hide 12", {"number": "12"}),
        ("compact", {"matters": None}),
        ("compact keep the names", {"matters": "the names"}),
        ("edit 2", {"number": "2"}),
        ('history "linear regression"', {"word": None, "text": "linear regression"}),
    ],
)
def test_commands_of_conversations_take_their_arguments(line: str, words: dict[str, str | None]) -> None:
    parsed = parse(line)
    assert parsed.command is not None
    assert (parsed.command.name, parsed.words) == (line.split()[0], words)


def test_a_mistyped_subcommand_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="did you mean %mentra models"):
        parse("modles")


def test_a_mistyped_subcommand_before_a_number_is_no_question() -> None:
    with pytest.raises(ConfigurationError, match=r"did you mean %mentra allow 1\?"):
        parse("allwo 1")
    assert parse("top 10").prompt == "top 10"
    assert parse("-- allwo 1").prompt == "allwo 1"


def test_every_command_and_option_is_in_help_and_in_completion() -> None:
    shown = help_text(COMMANDS, OPTIONS)
    assert [command for command in READY if f"    {command}" not in shown] == []
    assert [flag for option in OPTIONS for flag in option.flags if flag not in shown] == []
    assert completions("%mentra ", Names())[0] == READY
    assert completions("%%mentra -", Names())[0] == [flag for option in OPTIONS for flag in option.flags]
    assert all(hasattr(Parsed(), option.name) for option in OPTIONS)
    for name in READY:
        assert name in help_text(COMMANDS, OPTIONS, name)


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("nosuch", "%mentra help lists all"),
        ("modles", "did you mean %mentra help models?"),
        ("--modle", "help --model"),
    ],
)
def test_help_on_something_unknown_says_that_there_is_none(word: str, hint: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        help_text(COMMANDS, OPTIONS, word)
    assert str(refused.value).startswith(f"there is no subcommand or option '{word}': ")
    assert hint in str(refused.value)


def test_help_on_an_option_and_its_width() -> None:
    assert help_text(COMMANDS, OPTIONS, "-m") == help_text(COMMANDS, OPTIONS, "--model")
    lines = help_text(COMMANDS, OPTIONS).splitlines()
    assert max(map(len, lines)) <= 80
    long = next(n for n, line in enumerate(lines) if line.startswith("    usage "))
    assert lines[long + 1] == " " * 31 + "tokens, cost and time"


def test_a_row_is_all_a_command_needs(capsys: pytest.CaptureFixture[str]) -> None:
    row = Command("greet", r"greet(?: (?P<who>\w+))?", "greet [WHO]", "say hello", lambda _, words: print(words["who"]))
    assert "    greet [WHO]" in help_text([*COMMANDS, row], OPTIONS)
    words = row.words("greet you")
    assert words is not None
    row.run(Context({}, show=pytest.fail), words)
    assert capsys.readouterr().out == "you\n"
    assert row.words("greet you all") is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("%mentra us", ["usage"]),
        ("%%mentra us", []),
        ("%mentra help al", ["alias", "allow"]),
        ("%mentra usage ", ["--by"]),
        ("%mentra usage --by ", ["model", "day", "session", "provider", "tool"]),
        ("%mentra allow ", ["once", "always", "because"]),
        ("%mentra rules re", ["revoke"]),
        ("%mentra rules revoke ", ["rule-3f2a9c", "rule-77e371"]),
        ("%mentra rules revoke rule-7", ["rule-77e371"]),
        ("%mentra model ol", ["ollama/"]),
        ("%mentra alias fast qu", ["quick"]),
        ("%mentra -m qu", ["quick"]),
        ("%%mentra --model qu", ["quick"]),
        ("%mentra -o a -t rev", ["revenue"]),
        ("%%mentra --t", ["--tool"]),
        ("%mentra tell me mo", []),
        ("%mentra undo ", []),
    ],
)
def test_completion_offers_what_may_follow(text: str, found: list[str]) -> None:
    assert completions(text, Names())[0] == found


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("-m x", "model='x'"),
        ("--model=x", "model='x'"),
        ("-t a -t b", "tool=['a', 'b']"),
        ("-s 'a b'", "session='a b'"),
    ],
)
def test_options_are_read_up_to_the_first_word_that_is_not_one(option: str, value: str) -> None:
    parsed = parse(f"{option} what is -z for?")
    assert value in repr(parsed)
    assert parsed.prompt == "what is -z for?"


@pytest.mark.parametrize("name", [name for name in READY if name not in ("allow", "deny", "stop")])
def test_no_other_command_answers_a_question(name: str) -> None:
    assert parse_answer(f"%mentra {name}") is None


def test_the_table_loads_no_engine_and_no_database() -> None:
    program = (
        "import mentra_nb.notebook.extension, sys; print(*(set(sys.modules) & {'pandas', 'duckdb', 'anywidget'})); "
    )
    program += "print('mentra_nb.chat.engine' in sys.modules, 'mentra_nb.record' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "\nFalse False\n"
