"""A question at a prompt: patterns to choose from, values one by one or in one line, and what is said of a wide one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kits.stores import question

from mentra_nb.authorization import CallEffect, PermissionDecision, PermissionQuestion, Subject
from mentra_nb.chat import engine
from mentra_nb.errors import OperationDenied
from mentra_nb.forms import Form
from mentra_nb.notebook import asking
from mentra_nb.notebook.commands.command import Answer
from mentra_nb.notebook.prompting import Prompt
from mentra_nb.notebook.typed import parse_answer, parse_numbered, refused_answer
from mentra_nb.notebook.wide import tell_first
from mentra_nb.permission.questions import check_answer

TRIP = Form.from_schema(
    "The server",
    "Where to?",
    {
        "properties": {
            "city": {"type": "string", "title": "City"},
            "days": {"type": "integer", "default": 2},
            "by sea": {"type": "boolean"},
            "season": {"type": "string", "enum": ["spring", "late summer"]},
            "meals": {"type": "array", "items": {"enum": ["lunch", "dinner"]}},
        },
        "required": ["city"],
    },
)
WHOLE = {"city": "Santa Fe", "days": 3, "by sea": True, "season": "late summer", "meals": ["lunch", "dinner"]}
LINE = """city="Santa Fe" days=3 "by sea"=yes season='late summer' meals=lunch,dinner"""


@pytest.fixture(autouse=True)
def _engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    engine.reset()
    yield
    engine.reset()


def asked(id: str = "q1", **changes: Any) -> PermissionQuestion:
    command = "git log -3"
    about = {"tool_name": "shell", "subject": Subject.shell(command), "arguments": {"command": command}}
    return question(id).model_copy(update=about | changes)


def at_prompt(about: PermissionQuestion, *typed: str) -> tuple[Answer | None, str]:
    """Type these lines at the prompts of a question. Returns what the last led to, and the prompt before it."""
    prompt, answer, shown = Prompt(about, None, "The question", repeats=False), None, ""
    for text in typed:
        assert answer is None
        shown = prompt.text()
        answer = prompt.reply(text)
    return answer, shown if answer is not None else prompt.text()


# ---- what is remembered -----------------------------------------------------------------------------------------


def test_always_offers_patterns_and_takes_a_number_one_of_your_own_or_nothing() -> None:
    _, shown = at_prompt(asked(), "w")
    assert [row.split("  ")[1:3] for row in shown.splitlines()[1:4]] == [
        ["1", "git log -3"],
        ["2", "git log *"],
        ["3", "git *"],
    ]
    assert "⚠ broad: git -c" in shown.splitlines()[3]
    for typed, pattern in (("2", "git log *"), ("git log -?", "git log -?")):
        answer = at_prompt(asked(), "w", typed)[0]
        assert answer == PermissionDecision(allow=True, remember="session", pattern=pattern)
    assert at_prompt(asked(), "w", "")[1] == "[a]llow once, al[w]ays, [d]eny, [s]top: "
    assert at_prompt(asked(), "w", "7")[1].startswith("There is no pattern 7.\nNumber, ")
    assert at_prompt(asked(), "w", "7", "1")[0] is not None


@pytest.mark.parametrize(
    "about",
    [{"effect": CallEffect(digest="d", outside=True)}, {"subject": Subject(kind="shell", parts=("ls", "pwd"))}],
    ids=["outside", "several parts"],
)
def test_where_no_pattern_can_be_proposed_none_is_asked_for(about: dict[str, Any]) -> None:
    assert at_prompt(asked(**about), "w")[0] == PermissionDecision(allow=True, remember="session")


def test_a_wide_pattern_is_remembered_only_once_a_person_was_told_what_it_covers() -> None:
    wide = PermissionDecision(allow=True, remember="session", pattern="git *")
    with pytest.raises(OperationDenied, match=r"'git \*' is broad: git -c.*give this answer again"):
        tell_first(asked("q-typed"), wide)
    tell_first(asked("q-typed"), wide)
    with pytest.raises(OperationDenied, match="is broad"):
        tell_first(asked("q-other"), wide)  # what was said of another question is not remembered
    answer, _ = at_prompt(asked("q-offered"), "w", "3")
    assert answer is not None
    tell_first(asked("q-offered"), answer)  # its row has said it
    for narrow in (
        wide.model_copy(update={"pattern": "git log -3"}),
        wide.model_copy(update={"remember": None}),
        wide.model_copy(update={"pattern": None}),
        PermissionDecision(allow=False, remember="session", pattern="git *"),
    ):
        tell_first(asked("q-new"), narrow)
    tell_first(asked("q-new"), "stop")


def test_a_pattern_can_be_typed_in_another_cell() -> None:
    answer = parse_answer("%mentra allow always git log * because I read it")
    assert answer == PermissionDecision(allow=True, remember="session", pattern="git log *", reason="I read it")
    assert parse_numbered("%mentra allow 2 always ls *") == (
        2,
        PermissionDecision(allow=True, remember="session", pattern="ls *"),
    )
    assert parse_answer("%mentra allow always because it is fine") == PermissionDecision(
        allow=True, remember="session", reason="it is fine"
    )


# ---- values -----------------------------------------------------------------------------------------------------


STEPS = ("a", "Santa Fe", "3", "yes", "late summer", "lunch, dinner")


@pytest.mark.parametrize("typed", [(LINE,), (f"answer {LINE}",), STEPS], ids=["values", "answer", "one by one"])
def test_values_are_typed_in_one_line_or_one_by_one(typed: tuple[str, ...]) -> None:
    about = asked(form=TRIP)
    answer, _ = at_prompt(about, *typed)
    assert isinstance(answer, PermissionDecision)
    assert check_answer(about, answer, [], None).values == WHOLE


def test_what_can_be_typed_is_said_with_the_names_and_the_choices() -> None:
    about = asked(form=TRIP)
    assert asking.choices(about) == (
        'city=… days=… "by sea"=yes|no season=spring|"late summer" meals=lunch|dinner, or [a]nswer one by one, '
        "[d] Decline, [s]top"
    )
    assert asking.short_text(about).splitlines()[1:] == [
        "  City (city): a text, needed",
        "  days: a whole number, else 2",
        "  by sea: yes or no",
        "  season: one of spring, late summer",
        "  meals: some of lunch, dinner, with commas",
    ]
    plain = Form(who="w", message="m", yes="Go on", no="Stop here")
    assert asking.choices(asked(form=plain)) == "[a] Go on, [d] Stop here, [s]top"
    assert at_prompt(asked(form=plain), "a")[0] == PermissionDecision(allow=True)
    assert at_prompt(asked(form=TRIP), "what?")[1].startswith("That is not an answer. Type city=…")


def test_a_value_that_does_not_fit_is_asked_for_again_and_one_with_a_default_may_be_left_out() -> None:
    about = asked(form=TRIP)
    assert at_prompt(about, "a", "")[1].startswith("'City' is needed\nCity (city): ")
    assert at_prompt(about, "a", "Oslo", "many")[1].startswith("'days' must be a whole number\ndays: ")
    answer, _ = at_prompt(about, "a", "Oslo", "", "", "", "")
    assert isinstance(answer, PermissionDecision)
    assert check_answer(about, answer, [], None).values == {"city": "Oslo", "days": 2}


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ("citty=Oslo", "there is no field 'citty': did you mean 'city'? there are city, days, by sea, season, meals"),
        ("x=1", "there is no field 'x'; there are city, days, by sea, season, meals"),
        ("days=3", "'City' is needed: fill it in on the card, or type city=…"),
        ("city=Oslo season=sprung", "'season' must be one of spring, late summer: did you mean 'spring'?"),
        ("city=Oslo days=many", "'days' must be a whole number"),
    ],
)
def test_values_that_do_not_fit_are_refused_with_what_would_fit(values: str, why: str) -> None:
    about, answer = asked(form=TRIP), parse_answer(f"%mentra answer {values}")
    assert isinstance(answer, PermissionDecision)
    with pytest.raises(OperationDenied) as refused:
        check_answer(about, answer, [], None)
    assert str(refused.value) == why


def test_values_allow_no_call_that_asks_for_none() -> None:
    answer = parse_answer("%mentra answer x=1")
    assert isinstance(answer, PermissionDecision)
    with pytest.raises(OperationDenied, match="asks for no values"):
        check_answer(asked(), answer, [], None)
    with pytest.raises(OperationDenied, match="nothing is to be filled in"):
        check_answer(asked(form=Form(who="w", message="m")), answer, [], None)


@pytest.mark.parametrize("line", ["answer the question", "answer 2 questions", "answer whether it is so"])
def test_prose_about_an_answer_is_a_question(line: str) -> None:
    assert parse_answer(f"%mentra {line}") is None
    assert refused_answer(f"%mentra {line}") is None


@pytest.mark.parametrize("line", ["answer", "answer x = 3", "answer 1", "answer 1 city=Santa Fe", "answer a=1 a=2"])
def test_an_answer_that_does_not_fit_answers_nothing_and_says_why(line: str) -> None:
    assert parse_answer(f"%mentra {line}") is parse_numbered(f"%mentra {line}") is None
    assert f"'{line}' is not carried out: write %mentra answer" in (refused_answer(f"%mentra {line}") or "")
