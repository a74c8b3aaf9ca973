"""The table of transcript entries: trees, appended to and read by path."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mentra_nb.content import Message
from mentra_nb.errors import StoreError, UnknownEntry
from mentra_nb.store.records import SAID, Entry
from mentra_nb.store.tables.agents import update_agent
from mentra_nb.store.tables.leases import check_holder
from mentra_nb.store.transactions import SHORT, Database, Transaction, insert, marks, to_json

_STEPS = """
    WITH RECURSIVE path(id, parent_id, depth) AS (
      SELECT id, parent_id, 0 FROM entries WHERE id = ? AND agent_id = ?
      UNION ALL SELECT e.id, e.parent_id, path.depth + 1 FROM entries e JOIN path ON e.id = path.parent_id"""
PATH = f"{_STEPS})"


class TranscriptTable(Database):
    async def append_entries(self, entries: Sequence[Entry], *, holder: str | None = None) -> None:
        rows = entry_rows(entries)

        await self.write(lambda db: append(db, rows, holder), brief=are_short(rows))

    async def load_path(self, agent_id: str, leaf: str | None, *, last: int | None = None) -> list[Entry]:
        if last is not None and last <= 0:
            return []
        path, values = (PATH, ()) if last is None else (f"{_STEPS} WHERE path.depth < ?)", (last - 1,))
        statement = f"{path} SELECT entries.* FROM path JOIN entries ON entries.id = path.id ORDER BY path.depth DESC"
        return to_entries(await self.read(lambda db: db.execute(statement, (leaf, agent_id, *values)).fetchall()))

    async def path_length(self, agent_id: str, leaf: str | None) -> int:
        return await self.read(lambda db: path_length(db, agent_id, leaf))

    async def load_entry(self, agent_id: str, entry_id: str) -> Entry | None:
        statement = "SELECT * FROM entries WHERE id = ? AND agent_id = ?"
        found = to_entries(await self.read(lambda db: db.execute(statement, (entry_id, agent_id)).fetchall()))
        return found[0] if found else None

    async def children(self, agent_id: str, entry_id: str | None) -> list[Entry]:
        where, parameters = ("= ?", [agent_id, entry_id]) if entry_id is not None else ("IS NULL", [agent_id])
        statement = f"SELECT * FROM entries WHERE agent_id = ? AND parent_id {where} ORDER BY created_at, id"
        return to_entries(await self.read(lambda db: db.execute(statement, parameters).fetchall()))

    async def entries_of_run(self, agent_id: str, run_id: str) -> list[Entry]:
        statement = "SELECT * FROM entries WHERE run_id = ? AND agent_id = ? ORDER BY created_at, id"
        return to_entries(await self.read(lambda db: db.execute(statement, (run_id, agent_id)).fetchall()))

    async def set_leaf(self, agent_id: str, leaf: str | None, *, holder: str | None = None) -> None:
        def work(db: Transaction) -> None:
            check_holder(db, agent_id, holder)
            known = "SELECT id FROM entries WHERE id = ? AND agent_id = ?"
            if leaf is not None and db.execute(known, (leaf, agent_id)).fetchone() is None:
                raise UnknownEntry(leaf)
            if not update_agent(db, agent_id, {"leaf": leaf}):
                raise StoreError(f"there is no stored agent '{agent_id}'")

        await self.write(work)


def path_length(db: Transaction, agent_id: str, leaf: str | None) -> int:
    """Return the number of entries from the root to `leaf`."""
    return int(db.execute(f"{PATH} SELECT count(*) AS length FROM path", (leaf, agent_id)).fetchone()["length"])


def entry_rows(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return the rows to insert for these entries."""
    return [
        {**entry.model_dump(exclude={"message"}), "message": to_json(entry.message), "delivers": entry.delivers}
        for entry in entries
    ]


def are_short(rows: Sequence[dict[str, Any]]) -> bool:
    """Return whether it takes little time to insert these rows."""
    return sum(len(row["message"]) for row in rows) < SHORT


def append(db: Transaction, rows: Sequence[dict[str, Any]], holder: str | None) -> None:
    """Insert entries of agents that `holder` holds."""
    for agent_id in {row["agent_id"] for row in rows}:
        check_holder(db, agent_id, holder)
    insert_entries(db, rows)


def insert_entries(db: Transaction, rows: Iterable[dict[str, Any]]) -> None:
    """Insert entries and clear the partial text of their turns."""
    for row in rows:
        columns = dict(row)
        if delivered := columns.pop("delivers"):
            db.execute(
                "UPDATE team_mail SET delivery = 'in_flight' WHERE team = ? AND recipient = ? "
                f"AND id IN ({marks(delivered)})",
                (SAID, row["agent_id"], *delivered),
            )
        insert(db, "entries", columns)
        if row["run_id"] is not None:  # the partial text is in the entries now, or was discarded
            db.execute("UPDATE runs SET partial = '' WHERE id = ? AND partial <> ''", (row["run_id"],))


def to_entries(rows: Iterable[Any]) -> list[Entry]:
    """Return the entries in these rows."""
    return [Entry.model_validate({**dict(row), "message": Message.model_validate_json(row["message"])}) for row in rows]
