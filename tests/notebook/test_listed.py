"""Several questions on one card: their list, which are alike, and what a person may change in one."""

from __future__ import annotations

import time
from typing import Any

import pytest
from kits.stores import question

from mentra_nb.authorization import CallEffect, PermissionDecision, PermissionQuestion, Subject
from mentra_nb.chat.questions import Waiting
from mentra_nb.errors import OperationDenied
from mentra_nb.event.screen import QuestionAnswered
from mentra_nb.forms import Form
from mentra_nb.notebook import editing
from mentra_nb.notebook.approval import ApprovalCard, Others
from mentra_nb.notebook.calls import decision
from mentra_nb.notebook.listed import lines
from mentra_nb.notebook.typed import parse_answer, parse_numbered
from mentra_nb.permission.alike import alike
from mentra_nb.who import person


def shell(id: str, command: str, **changes: Any) -> PermissionQuestion:
    about = {"tool_name": "shell", "subject": Subject.shell(command), "arguments": {"command": command}}
    return question(id).model_copy(update=about | changes)


LS, LS_B, RM = shell("q1", "ls a"), shell("q2", "ls b"), shell("q3", "rm x")


def card(shown: PermissionQuestion, *others: PermissionQuestion) -> tuple[ApprovalCard, list[Any], list[Any]]:
    """Return a card, the answers it gave, and what was done in its list."""
    answers: list[Any] = []
    done: list[Any] = []
    listed = Others([shown, *others], lambda id: done.append(id), lambda ids, reason: done.append((ids, reason)))
    return ApprovalCard(shown, answers.append, others=listed), answers, done


def say(shown: ApprovalCard, **content: Any) -> None:
    shown._on_message(shown, content, [])


# ---- the list ---------------------------------------------------------------------------------------------------


def test_the_card_of_one_question_has_no_list_and_of_several_one_with_what_each_acts_on() -> None:
    assert card(LS)[0].listed == {}
    listed = card(LS, RM, LS_B)[0].listed
    assert [(row["id"], row["text"], row["shown"]) for row in listed["rows"]] == [
        ("q1", "shell: ls a", True),
        ("q3", "shell: rm x", False),
        ("q2", "shell: ls b", False),
    ]
    assert (listed["alike"], listed["more"]) == (["q1", "q2"], 0)


def test_nine_questions_have_a_key_and_the_others_are_counted() -> None:
    listed = card(*(shell(f"q{n}", f"ls {n}") for n in range(12)))[0].listed
    assert (len(listed["rows"]), listed["more"], len(listed["alike"])) == (9, 3, 9)


def test_a_choice_in_the_list_is_passed_on_and_answers_nothing() -> None:
    shown, answers, done = card(LS, RM)
    say(shown, pick="q3")
    assert (answers, done) == ([], ["q3"])


def test_all_alike_are_allowed_that_the_page_has_shown_and_no_others() -> None:
    shown, answers, done = card(LS, LS_B, RM)
    say(shown, answer="all", ids=["q1", "q2", "q3", "q9"], reason=" both ")
    say(shown, answer="all", ids=["q1", "q2"], reason="")  # answered once
    assert (answers, done) == ([], [(["q1", "q2"], "both")])


def test_what_is_allowed_at_once_is_what_the_page_drew_and_not_what_came_since() -> None:
    shown, _, done = card(LS, LS_B)
    shown.relist([LS, LS_B, shell("q4", "ls c")])
    assert shown.listed["alike"] == ["q1", "q2", "q4"]
    say(shown, answer="all", ids=["q1", "q2"], reason="")
    assert done == [(["q1", "q2"], None)]


@pytest.mark.parametrize(
    "other",
    [
        shell("q2", "rm b"),
        shell("q2", "ls b; rm b"),
        shell("q2", "ls $(rm b)"),
        shell("q2", "ls b", again=True),
        shell("q2", "ls b", tool_name="background_run"),
        shell("q2", "ls b", arguments={"command": "ls b", "timeout": 3}),
        shell("q2", "ls b", session_id="s2"),
        shell("q2", "ls b", effect=CallEffect(digest="d")),
        shell("q2", "ls b", form=Form(who="w", message="m")),
        shell("q2", "ls b", subject=Subject(kind="shell", parts=("ls b",), protected=("b",))),
    ],
    ids=lambda each: f"{each.tool_name} {each.subject}",
)
def test_calls_that_differ_in_more_than_what_they_act_on_are_not_alike(other: PermissionQuestion) -> None:
    assert alike(LS, [LS, other, LS_B]) == [LS, LS_B]


def test_a_path_does_not_say_what_is_written_so_writes_are_not_alike_and_reads_in_a_folder_are() -> None:
    about: dict[str, Any] = {"tool_name": "write", "arguments": {}}
    one, two, far = (
        question(f"q{n}").model_copy(update={**about, "subject": Subject.path(path)})
        for n, path in enumerate(("a/x", "a/y", "b/z"))
    )
    assert alike(one, [one, two, far]) == []
    one, two, far = (each.model_copy(update={"capabilities": ("ReadOnly",)}) for each in (one, two, far))
    assert alike(one, [one, two, far]) == [one, two]


def test_a_call_that_one_row_does_not_show_whole_is_not_allowed_with_others() -> None:
    long, hidden = shell("q2", "ls " + "x" * 200), shell("q4", "ls a\u202eb")
    assert card(LS, long, hidden, shell("q5", "ls b"))[0].listed["alike"] == ["q1", "q5"]


# ---- changing ---------------------------------------------------------------------------------------------------


def test_what_is_changed_on_the_card_is_in_the_answer_and_what_is_not_stays() -> None:
    asked = question("q1").model_copy(update={"arguments": {"text": "a\nb", "n": [1, 2], "flag": True}})
    shown, answers, _ = card(asked)
    assert shown.question["editable"] == [["text", "a\nb"], ["n", "[1, 2]"], ["flag", "true"]]
    say(shown, answer="allow", arguments={"n": "[3]", "text": "7"}, reason="less")
    assert answers == [
        PermissionDecision(allow=True, arguments={"text": "7", "n": [3], "flag": True}, reason="less"),
    ]


def test_a_change_that_changes_nothing_is_a_plain_answer() -> None:
    shown, answers, _ = card(LS)
    say(shown, answer="allow", arguments={"command": "ls a"}, reason="")
    assert answers == [PermissionDecision(allow=True)]


@pytest.mark.parametrize("texts", [{"n": "many"}, {"n": "[" * 100_000}, {"other": "1"}, {"n": 3}])
def test_what_is_not_json_or_not_an_argument_is_refused_on_the_card(texts: dict[str, Any]) -> None:
    asked = question("q1").model_copy(update={"arguments": {"n": 1}})
    with pytest.raises(OperationDenied):
        editing.edited(asked, texts)
    shown, answers, _ = card(asked)
    say(shown, answer="allow", arguments=texts)
    assert answers == []
    say(shown, answer="allow")
    assert answers == [PermissionDecision(allow=True)]


@pytest.mark.parametrize(
    "changes",
    [
        {"arguments": {"a": "x\u202ey"}},
        {"arguments": {"a\u200bb": "x"}},
        {"arguments": {"a": "x\r\ny"}},
        {"arguments": {"a": "x" * 200_000}},
        {"again": True},
        {"effect": CallEffect(digest="d")},
        {"form": Form(who="w", message="m")},
    ],
)
def test_what_a_field_could_not_show_as_it_is_cannot_be_changed(changes: dict[str, Any]) -> None:
    assert editing.editable(question("q1").model_copy(update=changes)) == []


# ---- typed ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "numbered"),
    [
        ("%mentra allow 2", (2, PermissionDecision(allow=True))),
        ("%mentra allow 2 always", (2, PermissionDecision(allow=True, remember="session"))),
        ("%mentra deny 11 because it is late", (11, PermissionDecision(allow=False, reason="it is late"))),
        ("%mentra allow 0", None),
        ("%mentra allow 2 me", None),
        ("%mentra deny 100", None),
        ("%mentra allow", None),
        ("%mentra rules revoke 2", None),
    ],
)
def test_an_answer_may_name_its_question_by_the_number_in_a_list(code: str, numbered: object) -> None:
    assert parse_numbered(code) == numbered
    assert parse_answer(code) is None or numbered is None


def test_a_reason_may_be_typed_for_allowing_too() -> None:
    assert parse_answer("%mentra allow because it is late") == PermissionDecision(allow=True, reason="it is late")


# ---- shown ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("outcome", "words"), [("allowed", "allowed by"), ("denied", "denied by")])
def test_a_question_that_a_new_rule_decided_says_so_and_shows_no_id(outcome: Any, words: str) -> None:
    answer = QuestionAnswered(
        request_id="q1", tool_call_id="c", tool_name="t", outcome=outcome, decided_by="rule:rule-1"
    )
    assert decision(answer, "14:02") == f"{words} the new rule 14:02"


@pytest.mark.parametrize(("whose", "said"), [("somebody", ", begun by somebody"), (person().os_user, ""), (None, "")])
def test_a_question_of_somebody_elses_conversation_says_whose_it_is(whose: str | None, said: str) -> None:
    asked = question("q1", deadline=time.time() + 300)
    assert f" in 'plan' of n.ipynb{said}, 5 min left" in lines([Waiting(asked, "plan", "/p", "n.ipynb", whose)])
