"""The state store: permission rules, and questions that outlive the process that asked."""

from __future__ import annotations

import time

import pytest
from kits.stores import question, rule

from mentra_nb.authorization import PermissionDecision
from mentra_nb.store.records import QuestionAnswer
from mentra_nb.store.sql_store import SqlStore

pytestmark = pytest.mark.anyio

ALLOW, DENY = PermissionDecision(allow=True), PermissionDecision(allow=False)
TIMEOUT = PermissionDecision(allow=False, by="timeout")


# ---- rules and questions --------------------------------------------------------------------------------------


async def test_permission_rules_save_and_load_round_trip(store: SqlStore) -> None:
    assert await store.save_rule(rule("r1")) == rule("r1")
    assert await store.list_rules("s1") == [rule("r1")]


async def test_load_rules_with_project_id_returns_all_applicable_scopes(store: SqlStore) -> None:
    for made in (rule("s"), rule("p", "project", "/p"), rule("g", "global", ""), rule("x", "session", "s2")):
        await store.save_rule(made)
    assert {r.id for r in await store.list_rules("s1", "/p")} == {"s", "p", "g"}
    assert {r.id for r in await store.list_rules("s1")} == {"s", "g"}
    assert {r.id for r in await store.list_rules(None)} == {"g"}


async def test_the_last_decision_replaces_the_earlier_one(store: SqlStore) -> None:
    await store.save_rule(rule("r1", allow=True))
    await store.save_rule(rule("r2", allow=False))
    await store.save_rule(rule("r3", pattern="other"))
    assert [(r.id, r.allow) for r in await store.list_rules("s1")] == [("r2", False), ("r3", True)]


async def test_uses_are_counted_and_a_rule_can_be_revoked(store: SqlStore) -> None:
    await store.save_rule(rule("r1"))
    await store.count_rule_use("r1")
    await store.count_rule_use("r1")
    assert [r.times_used for r in await store.list_rules("s1")] == [2]
    assert await store.revoke_rule("r1") is True
    assert await store.revoke_rule("r1") is False
    assert await store.list_rules("s1") == []


async def test_permission_rules_are_scoped_per_session(store: SqlStore) -> None:
    await store.save_rule(rule("r1", key="s1"))
    await store.save_rule(rule("r2", key="s2"))
    assert [r.id for r in await store.list_rules("s1")] == ["r1"]
    assert [r.id for r in await store.list_rules("s2")] == ["r2"]


async def test_permission_rules_load_returns_empty_for_unknown_session(store: SqlStore) -> None:
    await store.save_rule(rule("r1", key="s1"))
    assert await store.list_rules("s9") == []


async def test_project_scoped_rules_are_visible_across_sessions(store: SqlStore) -> None:
    await store.save_rule(rule("r1", "project", "/p"))
    for session_id in ("s1", "s2", None):
        assert [r.id for r in await store.list_rules(session_id, "/p")] == ["r1"]
    assert await store.list_rules("s1", "/q") == []


async def test_a_revoked_project_or_global_allowance_stays_revoked(store: SqlStore) -> None:
    for made in (rule("r1", "project", "/p"), rule("r2", "global", "")):
        await store.save_rule(made)
        await store.save_rule(made.model_copy(update={"id": f"{made.id}-again", "allow": False}))
    assert [(r.id, r.allow) for r in await store.list_rules("s1", "/p")] == [("r1-again", False), ("r2-again", False)]


async def test_questions_are_open_until_closed_and_listed_by_session(store: SqlStore) -> None:
    one, two = question("q1"), question("q2", "s2")
    await store.open_question(one)
    await store.open_question(two)
    assert await store.open_questions() == [one, two]
    assert await store.open_questions("s2") == [two]
    assert await store.question_answer("q1") is None
    assert await store.close_question("q1", TIMEOUT) is True
    assert await store.open_questions() == [two]
    found = await store.question_answer("q1")
    assert found is not None
    assert found.decision == TIMEOUT
    await store.close_question("q2", PermissionDecision(allow=False, by="cancelled"))
    assert await store.stopped_questions("run-1") == [two]
    assert await store.stopped_questions("run-2") == []


async def test_a_question_can_be_answered_from_elsewhere_until_its_deadline(store: SqlStore) -> None:
    now = time.time()
    late = question("q0", deadline=now)
    whole = PermissionDecision(allow=False, reason="nö", values={"a": [1]}, arguments={"b": None}, user="ann", host="h")
    await store.open_question(late)
    await store.open_question(question("q1", deadline=now + 60))
    assert await store.answered_question("run-1", "c", "h") is None
    assert await store.close_question("q0", ALLOW, in_time=True) is False
    assert await store.close_question("q2", ALLOW, in_time=True) is False
    assert await store.close_question("q1", whole, in_time=True) is True
    found = await store.answered_question("run-1", "c", "h")
    assert found is not None
    assert now <= found.decided_at <= time.time()
    about = {"decided_at": found.decided_at, "deadline": found.deadline}
    assert found == QuestionAnswer(request_id="q1", decision=whole, **about)
    assert await store.open_questions() == [late]


async def test_an_answer_is_for_exactly_the_call_that_was_asked_about(store: SqlStore) -> None:
    await store.open_question(question("q1"))
    await store.open_question(question("q2", run_id=None))
    assert await store.close_question("q1", ALLOW, in_time=True) is True
    assert await store.close_question("q2", ALLOW, in_time=True) is True
    assert await store.answered_question("run-2", "c", "h") is None
    assert await store.answered_question("run-1", "c2", "h") is None
    assert await store.answered_question("run-1", "c", "other arguments") is None
    found = await store.answered_question("run-1", "c", "h")
    assert found is not None
    assert (found.request_id, found.decision) == ("q1", ALLOW)


async def test_the_first_answer_counts(store: SqlStore) -> None:
    await store.open_question(question("q1"))
    assert await store.close_question("q1", ALLOW, in_time=True) is True
    assert await store.close_question("q1", DENY, in_time=True) is False
    assert await store.close_question("q1", TIMEOUT) is False
    found = await store.answered_question("run-1", "c", "h")
    assert found is not None
    assert found.decision == ALLOW


async def test_the_latest_of_several_answers_about_a_call_is_found(store: SqlStore) -> None:
    for number in (1, 2, 3):
        await store.open_question(question(f"q{number}"))
    await store.close_question("q2", ALLOW, in_time=True)
    await store.close_question("q1", DENY, in_time=True)
    found = await store.answered_question("run-1", "c", "h")
    assert found is not None
    assert found.request_id == "q1"


async def test_a_question_past_its_deadline_is_closed_as_denied(store: SqlStore) -> None:
    now = time.time() + 3600
    late, later, open = (question(f"q{n}", deadline=now + offset) for n, offset in ((1, -10), (2, 0), (3, 10)))
    for made in (late, later, open):
        await store.open_question(made)
    assert await store.expire_questions(now) == [late, later]
    assert await store.expire_questions(now) == []
    assert await store.open_questions() == [open]
    found = await store.answered_question("run-1", "c", "h")
    assert found is not None
    assert (found.decision, found.decided_at) == (TIMEOUT, now)
    assert await store.close_question("q1", ALLOW, in_time=True) is False
