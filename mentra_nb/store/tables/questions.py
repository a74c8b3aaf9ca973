"""The table of permission questions, which outlive the process that asked. Each is closed once."""

from __future__ import annotations

import time
from typing import Any

from mentra_nb.authorization import PermissionDecision, PermissionQuestion
from mentra_nb.store.records import QuestionAnswer
from mentra_nb.store.transactions import Database, Transaction, insert, to_json

COLUMNS = {"request_id", "session_id", "run_id", "tool_call_id", "arguments_hash", "asked_at", "deadline"}
_ANSWER = "request_id, outcome, decided_by, reason, answer, decided_at, deadline"


class QuestionTable(Database):
    async def open_question(self, question: PermissionQuestion) -> None:
        row = {**question.model_dump(include=COLUMNS), "payload": to_json(question)}
        await self.write(lambda db: insert(db, "questions", row))

    async def close_question(self, request_id: str, decision: PermissionDecision, *, in_time: bool = False) -> bool:
        statement = (
            "UPDATE questions SET outcome = ?, decided_by = ?, reason = ?, answer = ?, decided_at = ? "
            "WHERE request_id = ? AND outcome IS NULL AND deadline > ?"
        )
        outcome, answer = "allowed" if decision.allow else "denied", to_json(decision)

        def work(db: Transaction) -> bool:
            now = time.time()
            row = (outcome, decision.by, decision.reason, answer, now, request_id, now if in_time else -1.0)
            return db.execute(statement, row).rowcount > 0

        return await self.write(work, sync=True)

    async def question_answer(self, request_id: str) -> QuestionAnswer | None:
        statement = f"SELECT {_ANSWER} FROM questions WHERE request_id = ? AND outcome IS NOT NULL"
        return _answer(await self.read(lambda db: db.execute(statement, (request_id,)).fetchone(), brief=True))

    async def answered_question(self, run_id: str, tool_call_id: str, arguments_hash: str) -> QuestionAnswer | None:
        statement = (
            f"SELECT {_ANSWER} FROM questions "
            "WHERE run_id = ? AND tool_call_id = ? AND arguments_hash = ? AND outcome IS NOT NULL "
            "ORDER BY decided_at DESC, request_id DESC LIMIT 1"
        )
        return _answer(
            await self.read(lambda db: db.execute(statement, (run_id, tool_call_id, arguments_hash)).fetchone())
        )

    async def stopped_questions(self, run_id: str) -> list[PermissionQuestion]:
        statement = (
            "SELECT payload FROM questions WHERE run_id = ? AND outcome IS NOT NULL AND decided_by = 'cancelled' "
            "ORDER BY asked_at, request_id"
        )
        rows = await self.read(lambda db: db.execute(statement, (run_id,)).fetchall())
        return [PermissionQuestion.model_validate_json(row["payload"]) for row in rows]

    async def expire_questions(self, now: float) -> list[PermissionQuestion]:
        statement = (
            "UPDATE questions SET outcome = 'denied', decided_by = 'timeout', decided_at = ? "
            "WHERE outcome IS NULL AND deadline <= ? RETURNING payload"
        )
        rows = await self.write(lambda db: db.execute(statement, (now, now)).fetchall())
        expired = [PermissionQuestion.model_validate_json(row["payload"]) for row in rows]
        return sorted(expired, key=lambda question: (question.asked_at, question.request_id))

    async def open_questions(self, session_id: str | None = None) -> list[PermissionQuestion]:
        where, parameters = ("", []) if session_id is None else ("AND session_id = ?", [session_id])
        statement = f"SELECT payload FROM questions WHERE outcome IS NULL {where} ORDER BY asked_at, request_id"
        rows = await self.read(lambda db: db.execute(statement, parameters).fetchall())
        return [PermissionQuestion.model_validate_json(row["payload"]) for row in rows]


def _answer(row: Any) -> QuestionAnswer | None:
    """Return the answer in a row. A row of an earlier version has no more than its outcome."""
    if row is None:
        return None
    if row["answer"] is not None:
        decision = PermissionDecision.model_validate_json(row["answer"])
    else:
        decision = PermissionDecision(
            allow=row["outcome"] == "allowed", by=row["decided_by"] or "", reason=row["reason"]
        )
    return QuestionAnswer(
        request_id=row["request_id"], decision=decision, decided_at=row["decided_at"], deadline=row["deadline"]
    )
