"""The tables of teams: members, mail, and requests between members."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from mentra_nb.store import records as r
from mentra_nb.store.tables.mailbox import Mailbox
from mentra_nb.store.transactions import Database, Transaction, insert, marks, to_json


class TeamTable(Database):
    async def save_member(self, team: str, member: r.TeamMember) -> None:
        row = {"team": team, **member.model_dump()}
        await self.write(lambda db: insert(db, "team_members", row, replace="team, name"))

    async def list_members(self, team: str) -> list[r.TeamMember]:
        statement = "SELECT * FROM team_members WHERE team = ? ORDER BY name"
        rows = await self.read(lambda db: db.execute(statement, (team,)).fetchall())
        return [r.TeamMember.model_validate(dict(row)) for row in rows]

    async def post_message(self, team: str, recipients: Sequence[str], message: r.TeamMessage) -> None:
        mail = {"team": team, "id": message.id, "payload": to_json(message), "sent_at": message.timestamp}

        def work(db: Transaction) -> None:
            for recipient in recipients:
                insert(db, "team_mail", {**mail, "recipient": recipient})

        await self.write(work)

    async def take_messages(self, team: str, recipient: str) -> list[r.TeamMessage]:
        rows = await self.write(_mail(team, recipient).take)
        rows.sort(key=lambda row: (row["sent_at"], row["id"]))
        return [r.TeamMessage.model_validate_json(row["payload"]) for row in rows]

    async def open_messages(self, team: str, recipient: str) -> list[tuple[r.TeamMessage, r.Delivery]]:
        statement = (
            "SELECT * FROM team_mail WHERE team = ? AND recipient = ? AND delivery <> 'acknowledged' "
            "ORDER BY sent_at, id"
        )
        rows = await self.read(lambda db: db.execute(statement, (team, recipient)).fetchall())
        return [(r.TeamMessage.model_validate_json(row["payload"]), row["delivery"]) for row in rows]

    async def mark_messages(self, team: str, recipient: str, ids: Collection[str], delivery: r.Delivery) -> None:
        statement = f"UPDATE team_mail SET delivery = ? WHERE team = ? AND recipient = ? AND id IN ({marks([*ids])})"
        await self.write(lambda db: db.execute(statement, (delivery, team, recipient, *ids)))

    async def acknowledge_messages(self, team: str, recipient: str, ids: Collection[str]) -> None:
        await self.write(lambda db: _mail(team, recipient).settle(db, "acknowledged", ids))

    async def requeue_messages(self, team: str, recipient: str, ids: Collection[str] | None = None) -> int:
        return await self.write(lambda db: _mail(team, recipient).settle(db, "pending", ids))

    async def count_messages(self, team: str, recipient: str) -> int:
        return await self.read(_mail(team, recipient).count)

    async def save_request(self, team: str, request: r.TeamRequest) -> None:
        row = {"team": team, **request.model_dump()}
        await self.write(lambda db: insert(db, "team_requests", row, replace="team, request_id"))

    async def resolve_request(self, team: str, request_id: str, *, approve: bool, reason: str | None = None) -> bool:
        statement = (
            "UPDATE team_requests SET status = ?, resolution_reason = ?, resolved_at = ? "
            "WHERE team = ? AND request_id = ? AND status = 'pending'"
        )
        row = ("approved" if approve else "rejected", reason, time.time(), team, request_id)
        return await self.write(lambda db: db.execute(statement, row).rowcount > 0)

    async def list_requests(self, team: str) -> list[r.TeamRequest]:
        statement = "SELECT * FROM team_requests WHERE team = ? ORDER BY created_at, request_id"
        rows = await self.read(lambda db: db.execute(statement, (team,)).fetchall())
        return [r.TeamRequest.model_validate(dict(row)) for row in rows]


def _mail(team: str, recipient: str) -> Mailbox:
    return Mailbox("team_mail", ("team", "recipient"), (team, recipient))
