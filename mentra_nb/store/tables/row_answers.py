"""The tables of answers to the prompts of rows, and of batches under way, so that none is paid for twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mentra_nb.store.transactions import SHORT, Database, Transaction, insert, marks

if TYPE_CHECKING:
    from mentra_nb.store.row_answers import RowAnswer, RowBatch

AT_ONCE = 500
"""Digests that one statement asks for."""


class RowAnswerTable(Database):
    async def load_row_answers(self, digests: Sequence[str]) -> dict[str, str]:
        def work(db: Transaction) -> dict[str, str]:
            found: dict[str, str] = {}
            for start in range(0, len(digests), AT_ONCE):
                some = digests[start : start + AT_ONCE]
                statement = f"SELECT digest, answer FROM row_answers WHERE digest IN ({marks(some)})"
                found.update((row["digest"], row["answer"]) for row in db.execute(statement, tuple(some)).fetchall())
            return found

        return await self.read(work)

    async def save_row_answers(self, answers: Sequence[RowAnswer]) -> None:
        def work(db: Transaction) -> None:
            for each in answers:
                insert(db, "row_answers", each._asdict(), replace="digest")

        await self.write(work, brief=sum(len(each.answer) for each in answers) < SHORT)

    async def forget_row_answers(self, prompt: str | None = None, model: str | None = None) -> int:
        wanted = {"prompt": prompt, "model": model}
        given = {name: value for name, value in wanted.items() if value is not None}
        where = f" WHERE {' AND '.join(f'{name} = ?' for name in given)}" if given else ""
        return await self.write(lambda db: db.execute(f"DELETE FROM row_answers{where}", (*given.values(),)).rowcount)

    async def save_row_batch(self, batch: RowBatch) -> None:
        row = {**batch._asdict(), "digests": json.dumps(batch.digests)}
        await self.write(lambda db: insert(db, "row_batches", row, replace="key"), sync=True)

    async def load_row_batches(self, model: str) -> list[RowBatch]:
        from mentra_nb.store.row_answers import RowBatch

        statement = "SELECT * FROM row_batches WHERE model = ? ORDER BY made_at, key"
        rows = await self.read(lambda db: db.execute(statement, (model,)).fetchall())
        return [RowBatch(**{**dict(row), "digests": json.loads(row["digests"])}) for row in rows]

    async def delete_row_batch(self, key: str) -> None:
        await self.write(lambda db: db.execute("DELETE FROM row_batches WHERE key = ?", (key,)))
