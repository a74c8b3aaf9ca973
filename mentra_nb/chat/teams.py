"""The team of a conversation, for a person: made by name, shown with a line for each member."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mentra_nb.agent.limits import RunOptions
from mentra_nb.arguments import check_text
from mentra_nb.chat.api import conversation
from mentra_nb.chat.earlier import about_earlier
from mentra_nb.chat.engine import engine
from mentra_nb.chat.opening import opened_beside
from mentra_nb.chat.turn import TurnPlan, presenter
from mentra_nb.errors import ConfigurationError

if TYPE_CHECKING:
    import pandas as pd

    from mentra_nb.chat.chat import Chat
    from mentra_nb.runtime.session import Session
    from mentra_nb.teams.config import TeamConfig
    from mentra_nb.teams.team import Team

COLUMNS = ("name", "status", "role", "last", "waiting", "cost_usd", "model", "id")
MAIL_COLUMNS = ("sent_at", "sender", "type", "content", "protocol", "approve", "request_id", "id")
REQUEST_COLUMNS = ("created_at", "sender", "recipient", "protocol", "content", "status", "resolution_reason")
WHY_EMPTY = (
    "This conversation has no team. %config Mentra.teams = True lets the model make one, mn.team({...}) makes it."
)
TEXTS = ("role", "prompt", "model")
SHORT = 80
"""Characters of a text in the line of a member."""


class TeamView:
    """The team of a conversation. It shows a line for each member as it is now. Made by `mn.team`.

    Example:
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
            >>> len(mn.team({"reader": "Reads files."}).to_df())
            1
        """
        return _frame(engine().call(_rows, self._team))

    def inbox(self) -> pd.DataFrame:
        """Return the messages that wait for the lead, oldest first. They reach the model with its next turn.

        Columns: `sent_at`, `sender`, `type` (message, broadcast, request or response), `content`; of a request or its
        response also `protocol`, `request_id` and, of a response, `approve`; `id`.

        Example:
            >>> mn.team({"reader": "Reads files."}).inbox().empty
            True
        """

        async def read() -> list[dict[str, Any]]:
            mail = await self._team.lead.environment.store.open_messages(self._team.id, self._team.lead.name)
            return [message.model_dump() | {"sent_at": message.timestamp} for message, _ in mail]

        return _timed(engine().call(read), MAIL_COLUMNS, "sent_at")

    def requests(self) -> pd.DataFrame:
        """Return the requests of the team, oldest first, with their answers; the index is `request_id`.

        Columns: `created_at`, `sender`, `recipient`, `protocol`, `content`, `status` (pending, approved or rejected),
        `resolution_reason`.

        Example:
            >>> team = mn.team({"reader": "Reads files."})
            >>> made = team.request("reader", "May the file be deleted?")
            >>> team.requests().status[made]
            'pending'
        """

        async def read() -> list[dict[str, Any]]:
            await self._team.load()
            return [request.model_dump() for request in self._team.requests()]

        return _timed(engine().call(read), ("request_id", *REQUEST_COLUMNS), "created_at").set_index("request_id")

    def send(self, name: str, text: str) -> None:
        """Send a message of the lead to a member. Raises `OperationDenied` for a name that there is not.

        Example:
            >>> mn.team({"reader": "Reads files."}).send("reader", "What was the revenue in March?")
        """
        check_text("team.send('reader', 'Read notes.md')", name=name, text=text)
        engine().call(self._team.send, self._team.lead.name, name, text)

    def request(self, name: str, text: str, protocol: str = "approval") -> str:
        """Ask a member, as the lead, to approve or reject something. Returns the id of the request.

        Raises `OperationDenied` for a name that there is not. With the protocol `shutdown` it ends if it approves.

        Example:
            >>> made = mn.team({"reader": "Reads files."}).request("reader", "Are you done?", "shutdown")
        """
        check_text("team.request('reader', 'Is this correct?')", name=name, text=text, protocol=protocol)
        return engine().call(self._team.request, self._team.lead.name, name, protocol, text).request_id

    def respond(self, request_id: str, approve: bool, reason: str = "") -> None:
        """Answer a request that a member has sent to the lead, in place of the model.

        Raises `OperationDenied` for a request that is not for the lead, or is answered already.

        Example:
            >>> team = mn.team({"reader": "Reads files."})
            >>> mine = team.requests().query("recipient != 'reader' and status == 'pending'")
            >>> for request_id in mine.index:
            ...     team.respond(request_id, approve=False, reason="Ask again tomorrow.")
        """
        check_text("team.respond(request_id, True, 'Go on.')", request_id=request_id, reason=reason)
        team = self._team

        async def answer() -> None:
            await team.respond(team.lead.name, request_id, approve=bool(approve), reason=reason)

        engine().call(answer)

    def wait(self) -> None:
        """Return when no member is at work on anything.

        Example:
            >>> mn.team({"reader": "Reads files."}).wait()
        """
        engine().call(self._team.wait_until_idle)

    def stop(self) -> None:
        """Let each member end once it has done what it has begun, and return then.

        Example:
            >>> mn.team({"reader": "Reads files."}).stop()
        """
        engine().call(_stopped, self._team)


def team(
    members: Mapping[str, str | Mapping[str, Any]] | None = None,
    *,
    claims: bool | None = None,
    idle_timeout: float | None = None,
    session: str | None = None,
) -> TeamView:
    """Make agents that work beside a conversation, or put its members to work again, and return the team.

    The tools, permissions and budgets of a member are at most those of the conversation. A question of a member says
    which one asks. What members write to the lead reaches the model before its next turn.

    Args:
        members: The role of each by its name, or a dict with `role`, and if you like `prompt`, its first message;
            `tools`, which of the conversation's tools it is offered, as in the setting `tool_profile`; `model`, as
            `provider/model`. Those that work already are left as they are; without members those of the conversation,
            or of the last one of this notebook, go on that a restart has ended.
        claims: Whether a member without work claims a task of the conversation's board that is ready and that nobody
            has, by default the setting `team_claims`.
        idle_timeout: Seconds after which a member without work shuts down, by default the setting
            `team_idle_timeout`.
        session: The name of a conversation, by default that of this notebook.

    Raises:
        ConfigurationError: A member is neither a role nor such a dict, or `idle_timeout` is not above 0.
        OperationDenied: A member cannot be made, or there is no conversation to go on with.

    Example:
        >>> members = {"reader": {"role": "Reads files.", "prompt": "What was the revenue in March?"}}
        >>> mn.team(members, idle_timeout=60).wait()
    """
    check_text("mn.team({'reader': 'Reads files.'})", {"session": session})
    wanted = {name: _checked(name, member) for name, member in (members or {}).items()}
    changes = {name: given for name, given in (("claims", claims), ("idle_timeout", idle_timeout)) if given is not None}
    chat, used = conversation(session), engine()

    return TeamView(used.call(_made, chat, wanted, changes))


async def _made(chat: Chat, wanted: Mapping[str, Mapping[str, Any]], changes: Mapping[str, object]) -> Team:
    """Return the team of a conversation, with its members at work and those that are wanted."""
    from mentra_nb.teams.joining import revive, spawn
    from mentra_nb.teams.team import team_of

    used, session = chat._engine, await _session(chat, creates=bool(wanted))
    made, limits = team_of(session.agent), chat.limits or RunOptions()
    if changes:
        made.configure(_configured(made.config, changes))
    if not session.agent.is_running:
        made.limits = replace(limits, budgets=used.budgets(limits), reviewer=await used.reviewer(limits))
    await revive(made)
    for name, member in wanted.items():
        if name.strip() not in made.at_work:
            model = await used.model(member["model"]) if "model" in member else None
            prompt, tools = member.get("prompt", ""), member.get("tools")
            await spawn(made, name, member["role"], prompt, tools=tools, model=model)
    return made


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


async def _session(chat: Chat, *, creates: bool) -> Session:
    """Return the session of a conversation, with the tools of teams. One that is not open is opened, or made."""
    from mentra_nb.teams.tools import team_tools

    if not chat._engine.settings.teams:  # the person makes the team: its model makes no more
        for tool in team_tools():
            if tool.spec.name != "team_spawn":
                chat.add_tool(tool)
    plan = TurnPlan("" if creates else None, chat.model, earlier=about_earlier(presenter()))
    return await opened_beside(chat, plan)


def _configured(config: TeamConfig, changes: Mapping[str, object]) -> TeamConfig:
    """Return a changed configuration. Raises `ConfigurationError` for a bad value."""
    from pydantic import ValidationError

    try:
        return config.model_validate(config.model_dump() | {**changes})
    except ValidationError as error:
        [first, *_] = error.errors()
        raise ConfigurationError(f"{first['loc'][0]} = {first['input']!r}: {first['msg']}") from None


def _checked(name: str, member: object) -> dict[str, Any]:
    """Return what a member is made from. Raises `ConfigurationError`."""
    given = {"role": member} if isinstance(member, str) else member
    if not isinstance(given, Mapping) or not set(given) <= {*TEXTS, "tools"} or "role" not in given:
        raise ConfigurationError(
            f"the member {name!r} is given as its role, or as a dict with 'role', 'prompt', 'tools' and 'model'"
        )
    if not isinstance(name, str) or not all(isinstance(given.get(each, ""), str) for each in TEXTS):
        raise ConfigurationError(f"the name, role, prompt and model of the member {name!r} are texts")
    tools = given.get("tools")
    if tools is not None and (isinstance(tools, str) or not _texts(tools)):
        raise ConfigurationError(f"the tools of the member {name!r} are a list of names")
    return dict(given)


def _texts(given: object) -> bool:
    return isinstance(given, Sequence) and all(isinstance(each, str) for each in given)


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


def _timed(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], time: str) -> pd.DataFrame:
    """Return a frame with these columns, of which `time` is in UTC."""
    import pandas as pd

    frame = pd.DataFrame(list(rows), columns=list(columns))
    frame[time] = pd.to_datetime(frame[time], unit="s", utc=True)
    frame.attrs["mentra_nb"] = True
    return frame


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    from mentra_nb.record.empty import or_why

    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame.attrs["mentra_nb"] = True
    return or_why(frame, WHY_EMPTY)
