"""The team tools: `team_spawn`, `team_send`, `team_broadcast`, `team_read_inbox`, `team_request` and two more."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from mentra_nb.authorization import Subject, ToolCapability
from mentra_nb.errors import MentraError
from mentra_nb.providers.base import ProviderToolSpec
from mentra_nb.store.work_records import TeamRequest
from mentra_nb.teams.joining import spawn
from mentra_nb.teams.membership import Membership
from mentra_nb.tools.schema import ToolError, schema_of, validated
from mentra_nb.tools.spec import ToolSpec
from mentra_nb.tools.tool import Tool, ToolContext, ToolOutput

MAX_CONTENT = 20_000
"""Characters of a message."""
_Content = Field(min_length=1, max_length=MAX_CONTENT)


class _Input(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore")


class _Nothing(_Input):
    pass


class _Spawn(_Input):
    name: str = Field(description="A short name, by which it gets messages.")
    role: str = Field(description="What it is for, in one sentence.")
    prompt: str | SkipJsonSchema[None] = Field(None, max_length=MAX_CONTENT, description="Its first message.")


class _Send(_Input):
    to: str = Field(description="The name of a member.")
    content: str = _Content


class _Broadcast(_Input):
    content: str = _Content


class _Request(_Send):
    protocol: str = Field(min_length=1, max_length=64, description='"plan_approval", "shutdown", or another.')


class _Respond(_Input):
    request_id: str
    approve: bool
    reason: str | SkipJsonSchema[None] = Field(None, max_length=MAX_CONTENT)


class _List(_Input):
    status: Literal["pending", "approved", "rejected"] | SkipJsonSchema[None] = None
    protocol: str | SkipJsonSchema[None] = None
    counterparty: str | SkipJsonSchema[None] = Field(None, description="The other member.")
    direction: Literal["inbound", "outbound", "any"] = "any"


class _TeamTool(Tool):
    """A tool of a team. What a teammate does is decided about as what its lead does, so nobody is asked here."""

    arguments: ClassVar[type[_Input]]
    companion: ClassVar[type[Any] | None] = Membership

    def validate(self, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            return validated(self.arguments, arguments).model_dump(exclude_none=True)
        except ToolError as error:
            raise ToolError(f"Invalid {self.spec.name} input: {error}") from error

    def subject(self, context: ToolContext, arguments: dict[str, Any]) -> Subject:
        return Subject.text(": ".join(str(each) for each in arguments.values()))

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        try:
            return ToolOutput(await self.act(context.service(Membership), self.arguments.model_validate(arguments)))
        except MentraError as error:
            raise ToolError(f"Failed to {self.spec.name.replace('team_', '').replace('_', ' ')}: {error}") from error

    async def act(self, own: Membership, given: Any) -> str:
        """Do what the tool is for, and return what the model reads."""
        raise NotImplementedError


def _spec(name: str, description: str, arguments: type[_Input], *, reads_only: bool = False) -> ToolSpec:
    wire = ProviderToolSpec(name=name, description=description, input_schema=schema_of(arguments))
    capabilities = (ToolCapability.TEAM_COORDINATION,)
    return ToolSpec(wire=wire, capabilities=capabilities, reads_only=reads_only, asks=False)


class TeamSpawnTool(_TeamTool):
    """Makes a teammate."""

    arguments: ClassVar[type[_Input]] = _Spawn
    spec: ToolSpec = _spec(
        "team_spawn",
        "Make a persistent teammate that works by itself, beside you, on what it gets as messages. Its answers reach "
        "you as messages before your next turn.",
        _Spawn,
    )

    async def act(self, own: Membership, given: Any) -> str:
        if not own.is_lead:
            raise ToolError("only the lead makes teammates")
        member = await spawn(own.team, given.name, given.role, given.prompt or "")
        return f"Spawned persistent teammate '{member.name}' (role: {member.role}, status: {member.status})"


class TeamSendTool(_TeamTool):
    """Sends a message to one member."""

    arguments: ClassVar[type[_Input]] = _Send
    spec: ToolSpec = _spec(
        "team_send", "Send a message to a member of the team, to ask for work or a proposal or to report.", _Send
    )

    async def act(self, own: Membership, given: Any) -> str:
        await own.team.send(own.name, given.to, given.content)
        return f"Sent message to '{given.to}'"


class TeamBroadcastTool(_TeamTool):
    """Sends a message to all others."""

    arguments: ClassVar[type[_Input]] = _Broadcast
    spec: ToolSpec = _spec("team_broadcast", "Send a message to all other members of the team.", _Broadcast)

    async def act(self, own: Membership, given: Any) -> str:
        names = await own.team.broadcast(own.name, given.content)
        return f"Sent message to {len(names)} recipient(s): {', '.join(names)}"


class TeamReadInboxTool(_TeamTool):
    """Reads the mail that waits."""

    arguments: ClassVar[type[_Input]] = _Nothing
    spec: ToolSpec = _spec("team_read_inbox", "Read the messages of the team that wait for you.", _Nothing)

    async def act(self, own: Membership, given: Any) -> str:
        await own.team.load()
        return _json(await own.take())


class TeamRequestTool(_TeamTool):
    """Asks a member to agree."""

    arguments: ClassVar[type[_Input]] = _Request
    spec: ToolSpec = _spec(
        "team_request",
        "Ask a member of the team to approve or reject something by team_respond. A teammate asks its lead so for the "
        'approval of a risky plan (protocol "plan_approval"); a lead asks a teammate so to end (protocol "shutdown").',
        _Request,
    )

    async def act(self, own: Membership, given: Any) -> str:
        made = await own.team.request(own.name, given.to, given.protocol, given.content)
        return f"Sent request {made.request_id} to '{made.recipient}' (protocol: {made.protocol})"


class TeamRespondTool(_TeamTool):
    """Answers a request."""

    arguments: ClassVar[type[_Input]] = _Respond
    spec: ToolSpec = _spec("team_respond", "Approve or reject a request that you got.", _Respond)

    async def act(self, own: Membership, given: Any) -> str:
        answered = await own.team.respond(own.name, given.request_id, approve=given.approve, reason=given.reason or "")
        return f"{answered.status.capitalize()} request {answered.request_id} (protocol: {answered.protocol})"


class TeamListRequestsTool(_TeamTool):
    """Lists the requests that the caller has sent or got."""

    arguments: ClassVar[type[_Input]] = _List
    spec: ToolSpec = _spec("team_list_requests", "List the requests you have sent or got.", _List, reads_only=True)

    async def act(self, own: Membership, given: Any) -> str:
        await own.team.load()
        return _json(request for request in own.team.requests() if _fits(request, own.name, given))


def _fits(request: TeamRequest, name: str, given: _List) -> bool:
    """Return whether a member may see a request, and wants to."""
    sent, got = request.sender == name, request.recipient == name
    directions = {"outbound": sent, "inbound": got, "any": sent or got}
    return (
        directions[given.direction]
        and given.status in (None, request.status)
        and given.protocol in (None, request.protocol)
        and given.counterparty in (None, request.recipient if sent else request.sender)
    )


def team_tools() -> list[Tool]:
    """Return the tools with which a model makes a team of agents, for `Runtime(tools=…)` or `Chat(tools=…)`.

    Example:
        >>> [tool.spec.name for tool in mn.team_tools()][:3]
        ['team_spawn', 'team_send', 'team_broadcast']
    """
    first = [TeamSpawnTool(), TeamSendTool(), TeamBroadcastTool(), TeamReadInboxTool()]
    return [*first, TeamRequestTool(), TeamRespondTool(), TeamListRequestsTool()]


def _json(items: Iterable[BaseModel]) -> str:
    return json.dumps([_shown(each) for each in items], ensure_ascii=False, indent=1)


def _shown(item: BaseModel) -> dict[str, Any]:
    return item.model_dump(mode="json", by_alias=True, exclude_none=True)
