"""The table of permission rules, one per scope, key, tool and pattern."""

from __future__ import annotations

import json
from typing import Any

from mentra_nb.authorization import PermissionRule
from mentra_nb.store.transactions import Database, insert, to_json


def _rule(row: dict[str, Any]) -> PermissionRule:
    folders = row.pop("folders")
    return PermissionRule.model_validate({**row, "folders": None if folders is None else json.loads(folders)})


class RuleTable(Database):
    async def save_rule(self, rule: PermissionRule) -> PermissionRule:
        row, same = rule.model_dump(exclude={"breadth"}), "scope, scope_key, tool, pattern"
        row["folders"] = None if rule.folders is None else to_json(rule.folders)
        await self.write(lambda db: insert(db, "rules", row, replace=same), sync=True)
        return rule

    async def list_rules(self, session_id: str | None, project: str | None = None) -> list[PermissionRule]:
        statement = (
            "SELECT * FROM rules WHERE scope = 'global' OR (scope = 'session' AND scope_key = ?) "
            "OR (scope = 'project' AND scope_key = ?) ORDER BY created_at, id"
        )
        rows = await self.read(lambda db: db.execute(statement, (session_id, project)).fetchall(), brief=True)
        return [_rule(dict(row)) for row in rows]

    async def revoke_rule(self, rule_id: str) -> bool:
        statement = "DELETE FROM rules WHERE id = ?"
        return await self.write(lambda db: db.execute(statement, (rule_id,)).rowcount > 0, sync=True)

    async def count_rule_use(self, rule_id: str) -> None:
        statement = "UPDATE rules SET times_used = times_used + 1 WHERE id = ?"
        await self.write(lambda db: db.execute(statement, (rule_id,)), brief=True)
