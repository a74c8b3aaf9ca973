"""The table of agents."""

from __future__ import annotations

import json
import time
from typing import Any

from mentra_nb.errors import StoreError
from mentra_nb.store.records import AgentRecord
from mentra_nb.store.transactions import SHORT, Database, Transaction, insert, to_json


class AgentTable(Database):
    async def create_agent(self, agent: AgentRecord) -> None:
        row = {**agent.model_dump(), "config": to_json(agent.config)}
        await self.write(lambda db: insert(db, "agents", row), brief=len(row["config"]) < SHORT)

    async def load_agent(self, agent_id: str) -> AgentRecord | None:
        row = await self.read(lambda db: db.execute("SELECT * FROM agents WHERE id = ?", (agent_id,)).fetchone())
        return None if row is None else to_agent(row)

    async def list_agents(self, runtime_identifier: str | None = None) -> list[AgentRecord]:
        where, parameters = "", []
        if runtime_identifier is not None:
            where, parameters = "AND runtime_identifier = ?", [runtime_identifier]
        statement = f"SELECT * FROM agents WHERE kind <> 'subagent' {where} ORDER BY created_at, id"
        return [to_agent(row) for row in await self.read(lambda db: db.execute(statement, parameters).fetchall())]

    async def set_status(self, agent_id: str, status: str) -> None:
        await self.update_agent(agent_id, status=status)

    async def update_agent(
        self,
        agent_id: str,
        *,
        model: str | None = None,
        provider_id: str | None = None,
        config: dict[str, Any] | None = None,
        status: str | None = None,
    ) -> None:
        row = {"model": model, "provider_id": provider_id, "status": status}
        row["config"] = None if config is None else to_json(config)
        changed = {name: value for name, value in row.items() if value is not None}

        def work(db: Transaction) -> None:
            if not update_agent(db, agent_id, changed):
                raise StoreError(f"there is no stored agent '{agent_id}'")

        await self.write(work)


def update_agent(db: Transaction, agent_id: str, changed: dict[str, Any]) -> bool:
    """Set these columns and `updated_at`. Return `False` when there is no such agent."""
    row = {**changed, "updated_at": time.time()}
    columns = ", ".join(f"{column} = ?" for column in row)
    return db.execute(f"UPDATE agents SET {columns} WHERE id = ?", [*row.values(), agent_id]).rowcount > 0


def to_agent(row: Any) -> AgentRecord:
    """Return the agent in this row."""
    return AgentRecord.model_validate({**dict(row), "config": json.loads(row["config"])})
