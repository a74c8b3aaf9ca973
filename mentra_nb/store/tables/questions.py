"""The table of permission questions, which outlive the process that asked. Each is closed once."""

from __future__ import annotations

import time

from mentra_nb.authorization import PermissionQuestion
from mentra_nb.store.records import QuestionAnswer
from mentra_nb.store.transactions import Database, Transaction, insert, to_json

COLUMNS = {"request_id", "session_id", "run_id", "tool_call_id", "arguments_hash", "asked_at", "deadline"}


class QuestionTable(Database):
    async def open_question(self, question: PermissionQuestion) -> None:
        row = {**question.model_dump(include=COLUMNS), "payload": to_json(question)}
        await self.write(lambda db: insert(db, "questions", row))

    async def close_question(self, request_id: str, outcome: str, decided_by: str) -> None:
        statement = (
            "UPDATE questions SET outcome = ?, decided_by = ?, decided_at = ? WHERE request_id = ? AND outcome IS NULL"
        )
        row = (outcome, decided_by, time.time(), request_id)
        await self.write(lambda db: db.execute(statement, row), sync=True)

    async def answer_question(
        self, request_id: str, *, allow: bool, decided_by: str, reason: str | None = None
    ) -> bool:
        statement = (
            "UPDATE questions SET outcome = ?, decided_by = ?, reason = ?, decided_at = ? "
            "WHERE request_id = ? AND outcome IS NULL AND deadline > ?"
        )

        def work(db: Transaction) -> bool:
            now = time.time()
            row = ("allowed" if allow else "denied", decided_by, reason, now, request_id, now)
            return db.execute(statement, row).rowcount > 0

        return await self.write(work, sync=True)

    async def answered_question(self, run_id: str, tool_call_id: str, arguments_hash: str) -> QuestionAnswer | None:
        statement = (
            "SELECT request_id, outcome, decided_by, reason, decided_at, deadline FROM questions "
            "WHERE run_id = ? AND tool_call_id = ? AND arguments_hash = ? AND outcome IS NOT NULL "
            "ORDER BY decided_at DESC, request_id DESC LIMIT 1"
        )
        row = await self.read(lambda db: db.execute(statement, (run_id, tool_call_id, arguments_hash)).fetchone())
        return None if row is None else QuestionAnswer.model_validate(dict(row))

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
