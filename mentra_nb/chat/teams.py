"""The team of a conversation, for a person: made by name, shown with a line for each member."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mentra_nb.agent.limits import RunOptions
from mentra_nb.arguments import check_text
from mentra_nb.chat.api import conversation
from mentra_nb.chat.engine import engine
from mentra_nb.errors import ConfigurationError, OperationDenied

if TYPE_CHECKING:
    import pandas as pd

    from mentra_nb.teams.team import Team

COLUMNS = ("name", "status", "role", "last", "waiting", "cost_usd", "model", "id")
WHY_EMPTY = (
    "This conversation has no team. %config Mentra.teams = True lets the model make one, mn.team({...}) makes it."
)
SHORT = 80
"""Characters of a text in the line of a member."""


class TeamView:
    """The team of a conversation. It shows a line for each member as it is now. Made by `mn.team`.

    Example:
        >>> reply = mn.ask("What was the revenue in March?")
        >>> team = mn.team({"reader": "Reads files and answers questions about them."})
        >>> team
        reader · idle · Reads files and answers questions about them.
        >>> team.send("reader", "What was the revenue in March?")
        >>> team.wait()
        >>> len(team.to_df())
        1
        >>> team.stop()
    """

    def __init__(self, team: Any) -> None:
        self._team: Team = team

    def __repr__(self) -> str:
        from mentra_nb.page.escaping import visible

        lines = []
        for row in engine().call(_rows, self._team):
            cost = f"${row['cost_usd']:.4f}" if row["cost_usd"] else ""
            waiting = f"{row['waiting']} waiting" if row["waiting"] else ""
            said = row["last"] or row["role"]
            parts = (row["name"], row["status"], waiting, " ".join(said.split())[:SHORT], cost)
            lines.append(visible(" · ".join(filter(None, parts))))
        return "\n".join(lines) or "no members"

    def to_df(self) -> pd.DataFrame:
        """Return a row for each member: name, status, role, its last answer, messages that wait for it, cost in USD.

        Example:
            >>> reply = mn.ask("What was the revenue in March?")
            >>> len(mn.team({"reader": "Reads files."}).to_df())
            1
        """
        return _frame(engine().call(_rows, self._team))

    def send(self, name: str, text: str) -> None:
        """Send a message of the lead to a member. Raises `OperationDenied` for a name that there is not.

        Example:
            >>> reply = mn.ask("What was the revenue in March?")
            >>> mn.team({"reader": "Reads files."}).send("reader", "What was the revenue in March?")
        """
        check_text("team.send('reader', 'Read notes.md')", name=name, text=text)
        engine().call(self._team.send, self._team.lead.name, name, text)

    def wait(self) -> None:
        """Return when no member is at work on anything.

        Example:
            >>> reply = mn.ask("What was the revenue in March?")
            >>> mn.team({"reader": "Reads files."}).wait()
        """
        engine().call(self._team.wait_until_idle)

    def stop(self) -> None:
        """Let each member end once it has done what it has begun, and return then.

        Example:
            >>> reply = mn.ask("What was the revenue in March?")
            >>> mn.team({"reader": "Reads files."}).stop()
        """
        engine().call(_stopped, self._team)


def team(members: Mapping[str, str | Mapping[str, str]] | None = None, *, session: str | None = None) -> TeamView:
    """Make agents that work beside a conversation, or put its members to work again, and return the team.

    The model, tools, permissions and budgets are at most those of the conversation, in which something was asked. A
    question of a member says which one asks. What members answer reaches the model before its next turn.

    Args:
        members: The role of each by its name, or a dict with `role` and `prompt`, its first message. Those that work
            already are left as they are; without members all that a restart has ended go on.
        session: The name of a conversation, by default that of this notebook.

    Raises:
        ConfigurationError: A member is neither a role nor such a dict.
        OperationDenied: Nothing was asked in the conversation yet, or a member cannot be made.

    Example:
        >>> reply = mn.ask("What was the revenue in March?")
        >>> mn.team({"reader": {"role": "Reads files.", "prompt": "What was the revenue in March?"}}).wait()
    """
    check_text("mn.team({'reader': 'Reads files.'})", {"session": session})
    wanted = {name: _checked(name, member) for name, member in (members or {}).items()}
    chat, used = conversation(session), engine()

    async def work() -> Team:
        from mentra_nb.teams.joining import revive, spawn
        from mentra_nb.teams.team import team_of

        if (opened := chat._session) is None:
            raise OperationDenied("ask something in this conversation first: its team works beside it")
        made, limits = team_of(opened.agent), chat.limits or RunOptions()
        if not opened.agent.is_running:
            made.limits = replace(limits, budgets=used.budgets(limits), reviewer=await used.reviewer(limits))
        await revive(made)
        for name, member in wanted.items():
            if name not in made.at_work:
                await spawn(made, name, member["role"], member.get("prompt", ""))
        return made

    return TeamView(used.call(work))


def teammates() -> pd.DataFrame:
    """Return the members of the team of this notebook's conversation, also those that are not at work here."""
    chat, used = conversation(), engine()

    async def read() -> list[dict[str, Any]]:
        from mentra_nb.teams.team import team_of

        if (opened := chat._session) is None:
            return []
        made = team_of(opened.agent)
        await made.load()
        return await _rows(made)

    return _frame(used.call(read))


def _checked(name: str, member: object) -> dict[str, str]:
    """Return what a member is made from. Raises `ConfigurationError`."""
    given = {"role": member} if isinstance(member, str) else member
    if not isinstance(given, Mapping) or not set(given) <= {"role", "prompt"} or "role" not in given:
        raise ConfigurationError(f"the member {name!r} is given as its role, or as a dict with 'role' and 'prompt'")
    if not isinstance(name, str) or not all(isinstance(each, str) for each in given.values()):
        raise ConfigurationError(f"the name, role and prompt of the member {name!r} are texts")
    return dict(given)


async def _rows(team: Team) -> list[dict[str, Any]]:
    from mentra_nb.pricing import cost_usd

    rows = []
    for member in team.members():
        mate = team.at_work.get(member.name)
        cost = cost_usd(mate.agent.provider.descriptor.id, mate.agent.model, mate.usage) if mate is not None else None
        status = f"{member.status}: {member.failure}" if member.failure else member.status
        about: dict[str, Any] = {
            "name": member.name,
            "status": status,
            "role": member.role,
            "last": mate.last if mate else "",
        }
        rows.append(
            about | {"waiting": team.unread(member.name), "cost_usd": cost, "model": member.model, "id": member.id}
        )
    return rows


async def _stopped(team: Team) -> None:
    for name in list(team.at_work):
        team.shut_down(name)
    while team.at_work:
        await team.changed()


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    from mentra_nb.record.empty import or_why

    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame.attrs["mentra_nb"] = True
    return or_why(frame, WHY_EMPTY)
