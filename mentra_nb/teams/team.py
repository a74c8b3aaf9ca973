"""A team: its members, its mail and its requests. One object for each lead in a runtime.

The store has all of it except which members are at work; that ends with the runtime.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import anyio

from mentra_nb.agent.agent import Agent
from mentra_nb.agent.limits import RunOptions
from mentra_nb.content import TokenUsage
from mentra_nb.errors import OperationDenied
from mentra_nb.event import rare
from mentra_nb.event.types import TurnOrigin
from mentra_nb.ids import new_id
from mentra_nb.permission.asking import SessionPermissions
from mentra_nb.store.work_records import TeamMember, TeamMessage, TeamRequest
from mentra_nb.teams.config import TeamConfig
from mentra_nb.words import counted

MAX_WAITING = 1_000
"""Messages that wait for one member."""


def team_of(agent: Agent) -> Team:
    """Return the team that an agent leads. Raises `OperationDenied` for a subagent."""
    if agent.home is None:
        raise OperationDenied("a subagent is not a member of a team")
    teams = agent.home.teams
    if (team := teams.get(agent.id)) is None:
        team = teams[agent.id] = Team(agent)
    elif team.lead is not agent:
        team.follow(agent)
    return team


class Worker(Protocol):
    """A member at work, as its team knows it."""

    agent: Agent
    is_busy: bool
    """Whether it takes a turn, or is about to."""
    usage: TokenUsage
    """Of its turns in this runtime."""
    last: str
    """The text of its last answer."""

    def wake(self) -> None: ...
    def use_environment_of(self, lead: Agent) -> None: ...


class Team:
    """The team of a lead. Must be used from its event loop only."""

    def __init__(self, lead: Agent) -> None:
        self.lead: Agent = lead
        self.id: str = lead.id
        self.is_loaded: bool = False
        self.at_work: dict[str, Worker] = {}
        self.leaving: set[str] = set()
        self._store = lead.environment.store
        self._config: TeamConfig | None = None
        self._members: dict[str, TeamMember] = {}
        self._requests: dict[str, TeamRequest] = {}
        self._unread: Counter[str] = Counter()
        self.limits: RunOptions = RunOptions()
        """Those of the last turn of the lead, or what its teammates have before it takes one."""
        self._origin = TurnOrigin()
        self._loading = anyio.Lock()
        self._news = anyio.Event()
        self._end_tap = lead.environment.bus.tap(self.hear)

    @property
    def config(self) -> TeamConfig:
        """How the team works: what it was configured with itself, or else the `TeamConfig` of the runtime."""
        return self._config or self.lead.environment.services.get(TeamConfig) or TeamConfig()

    def configure(self, config: TeamConfig) -> None:
        """Let this team work in another way from now on, until its runtime is closed."""
        self._config = config
        for mate in self.at_work.values():
            mate.wake()

    def follow(self, lead: Agent) -> None:
        """Use another object for the same lead: it was resumed again in this runtime."""
        self._end_tap()
        self.lead = lead
        self._end_tap = lead.environment.bus.tap(self.hear)
        for mate in self.at_work.values():
            mate.use_environment_of(lead)

    async def load(self) -> None:
        """Read the team from the store, once. Mail that a dead process had taken waits again."""
        async with self._loading:
            if self.is_loaded:
                return
            for member in await self._store.list_members(self.id):
                self._members[member.name] = member
            for request in await self._store.list_requests(self.id):
                self._requests[request.request_id] = request
            for name in (self.lead.name, *self._members):
                await self._store.requeue_messages(self.id, name)
                self._unread[name] = await self._store.count_messages(self.id, name)
            self.is_loaded = True

    # ---- members ----------------------------------------------------------------------------------------------

    def members(self) -> list[TeamMember]:
        """Return the members, by name. The lead is not among them."""
        return [self._shown(self._members[name]) for name in sorted(self._members)]

    def _shown(self, member: TeamMember) -> TeamMember:
        is_there = member.name in self.at_work or member.status == "shutdown"
        return member if is_there else member.model_copy(update={"status": "dormant"})

    def check_new(self, name: str, role: str) -> None:
        """Raise `OperationDenied` if no teammate can be made of that name."""
        if not name or not role:
            raise OperationDenied("a teammate needs a name and a role")
        if not name.isprintable() or len(name) > 64 or len(role) > 2_000:
            raise OperationDenied("a name is one line of up to 64 characters, a role has up to 2,000")
        if name == self.lead.name:
            raise OperationDenied(f"'{name}' is the name of the lead")
        if name in self.at_work:
            raise OperationDenied(f"teammate '{name}' already exists")
        if len(self.at_work) >= (most := self.config.max_members):
            raise OperationDenied(f"at most {counted(most, 'teammate')} may work at the same time")

    def member(self, name: str) -> TeamMember:
        """Return the member of a name, which there is."""
        return self._shown(self._members[name])

    async def save(self, member: TeamMember, kind: type[rare.TeammateSpawned | rare.TeammateUpdated]) -> None:
        """Store a member, and announce it."""
        self._members[member.name] = member
        await self._store.save_member(self.id, member)
        self.lead.environment.bus.emit(kind(agent_id=self.id, teammate=member.model_dump(mode="json")))
        self.pulse()

    async def set_status(
        self, name: str, status: Literal["idle", "working", "failed", "shutdown"], failure: str | None = None
    ) -> None:
        """Store what a member does now."""
        member = self._members[name]
        if (member.status, member.failure) != (status, failure):
            changed = member.model_copy(update={"status": status, "failure": failure})
            await self.save(changed, rare.TeammateUpdated)

    def shut_down(self, name: str) -> None:
        """Let a member end as soon as it has nothing left to do."""
        if (mate := self.at_work.get(name)) is not None:
            self.leaving.add(name)
            mate.wake()

    async def wait_until_idle(self) -> None:
        """Wait until no member is at work on anything."""
        while any(mate.is_busy for mate in self.at_work.values()):
            await self.changed()

    async def wait_for_mail(self, name: str | None = None) -> int:
        """Wait until messages wait for a member, by default the lead, and return how many."""
        await self.load()
        while not (waiting := self.unread(name or self.lead.name)):
            await self.changed()
        return waiting

    def note_turn(self) -> None:
        """Remember the limits and the origin of the turn that the lead takes, if it takes one."""
        if (options := self.lead.options) is not None:
            self.limits, self._origin = options, self.lead.origin

    def origin(self) -> TurnOrigin:
        """Return where a turn of a teammate comes from: the session of the lead, and its last cell."""
        self.note_turn()
        origin, asks = self._origin, self.lead.environment.authorizer
        if origin.session_id is None and isinstance(asks, SessionPermissions):
            origin = TurnOrigin(session_id=asks.session_id, project=asks.project)
        return origin.model_copy(update={"parent_id": self.id, "woken_by": None})

    def options(self, max_rounds: int) -> RunOptions:
        """Return the limits of a turn of a teammate: those of the last turn of the lead, counted anew."""
        self.note_turn()
        given = self.limits
        return RunOptions(
            retry_budget=given.retry_budget,
            tool_budget=given.tool_budget,
            model_budget=given.model_budget,
            token_budget=given.token_budget,
            cost_budget=given.cost_budget,
            budgets=given.budgets,
            reviewer=given.reviewer,
            context_window=given.context_window,
            max_rounds=max_rounds,
            retry_base=given.retry_base,
            retry_max=given.retry_max,
            retry_after_cap=given.retry_after_cap,
        )

    async def changed(self) -> None:
        """Wait until a member, its work or its mail changes."""
        await self._news.wait()

    def pulse(self) -> None:
        """Wake what waits for any change."""
        self._news.set()
        self._news = anyio.Event()

    def hear(self, event: Any) -> None:
        """Let idle teammates look at the board again when it has changed."""
        if self.config.claims and getattr(event, "kind", "") == "tasks_updated":
            for mate in self.at_work.values():
                mate.wake()

    # ---- mail -------------------------------------------------------------------------------------------------

    def unread(self, name: str) -> int:
        """Return how many messages wait for a member."""
        return self._unread[name]

    def others(self, name: str) -> list[str]:
        """Return the names of all but one, sorted."""
        gone = {member.name for member in self._members.values() if member.status == "shutdown"}
        return sorted({self.lead.name, *self._members} - gone - {name})

    async def send(self, sender: str, recipient: str, content: str, **more: Any) -> TeamMessage:
        """Store a message for a member, and wake it. Raises `OperationDenied` for an unknown recipient."""
        return (await self._post(sender, [recipient], content, **more))[0]

    async def broadcast(self, sender: str, content: str) -> list[str]:
        """Send a message to all others, and return their names."""
        await self.load()
        if recipients := self.others(sender):
            await self._post(sender, recipients, content, type="broadcast")
        return recipients

    async def _post(self, sender: str, recipients: Sequence[str], content: str, **more: Any) -> list[TeamMessage]:
        await self.load()
        self.note_turn()
        for name in recipients:
            self._check_recipient(name, may_be_gone=more.get("type") == "response")
            if self._unread[name] >= MAX_WAITING:
                raise OperationDenied(f"{counted(MAX_WAITING, 'message')} wait for '{name}' already")
        now = time.time()
        message = TeamMessage.model_validate(
            {"id": new_id("mail"), "from": sender, "content": content, "timestamp": now, **more}
        )
        with anyio.CancelScope(shield=True):  # else it would be unknown whether it is stored
            await self._store.post_message(self.id, recipients, message)
        for name in recipients:
            self._changed(name, 1)
            if (mate := self.at_work.get(name)) is not None:
                mate.wake()
        return [message]

    def _check_recipient(self, name: str, *, may_be_gone: bool = False) -> None:
        """Raise `OperationDenied` for a name that there is not, or of one that has shut down."""
        if name == self.lead.name:
            return
        if name not in self._members:
            known = ", ".join([self.lead.name, *sorted(self._members)])
            raise OperationDenied(f"Unknown team recipient '{name}'; there are: {known}")
        if name not in self.at_work and self._members[name].status == "shutdown" and not may_be_gone:
            raise OperationDenied(f"'{name}' has shut down and reads no messages: a new member may take the name")

    def _changed(self, name: str, by: int) -> None:
        self._unread[name] += by
        agent = self.at_work[name].agent if name in self.at_work else self.lead
        if name == agent.name:
            agent.environment.bus.emit(rare.TeamInboxUpdated(agent_id=agent.id, unread=self._unread[name]))
        self.pulse()

    async def take(self, name: str) -> list[TeamMessage]:
        """Take the messages that wait for a member, oldest first."""
        messages = await self._store.take_messages(self.id, name)
        if self._unread[name]:
            self._changed(name, -self._unread[name])
        return messages

    async def acknowledge(self, name: str, ids: Sequence[str]) -> None:
        """Forget messages that were taken: they are part of the conversation of the member."""
        if ids:
            await self._store.acknowledge_messages(self.id, name, ids)

    async def put_back(self, name: str, ids: Sequence[str]) -> None:
        """Let messages that were taken wait again."""
        if ids and (back := await self._store.requeue_messages(self.id, name, ids)):
            self._changed(name, back)

    # ---- requests ---------------------------------------------------------------------------------------------

    def requests(self) -> list[TeamRequest]:
        """Return the requests, oldest first."""
        return sorted(self._requests.values(), key=lambda each: (each.created_at, each.request_id))

    async def request(self, sender: str, recipient: str, protocol: str, content: str) -> TeamRequest:
        """Ask a member for its agreement, and return the request. Raises `OperationDenied`."""
        await self.load()
        request_id = new_id("request")
        about = {"from": sender, "to": recipient, "protocol": protocol, "content": content}
        request = TeamRequest.model_validate({**about, "request_id": request_id, "created_at": time.time()})
        self._check_recipient(recipient)
        await self._store.save_request(self.id, request)
        self._requests[request_id] = request
        self._tell(rare.TeamProtocolRequested, request)
        await self.send(sender, recipient, content, type="request", request_id=request_id, protocol=protocol)
        return request

    async def respond(self, name: str, request_id: str, *, approve: bool, reason: str = "") -> TeamRequest:
        """Answer a request, and return it. Raises `OperationDenied` if `name` cannot, or it is answered already."""
        await self.load()
        request = self._requests.get(request_id)
        if request is None:
            raise OperationDenied(f"Unknown team request '{request_id}'")
        if request.recipient != name:
            raise OperationDenied(f"'{name}' cannot respond to request '{request_id}': it is for {request.recipient}")
        why = reason.strip() or None
        if not await self._store.resolve_request(self.id, request_id, approve=approve, reason=why):
            raise OperationDenied(f"request '{request_id}' is answered already")
        answered: dict[str, Any] = {"status": "approved" if approve else "rejected", "resolution_reason": why}
        request = request.model_copy(update=answered | {"resolved_at": time.time()})
        self._requests[request_id] = request
        if approve and request.protocol == "shutdown":
            self.shut_down(name)
        self._tell(rare.TeamProtocolResolved, request)
        more = {"request_id": request_id, "protocol": request.protocol, "approve": approve}
        await self.send(name, request.sender, why or "", type="response", **more)
        return request

    def _tell(self, kind: type[rare.TeamProtocolRequested | rare.TeamProtocolResolved], request: TeamRequest) -> None:
        data = request.model_dump(mode="json", by_alias=True, exclude_none=True)
        for agent in (self.lead, *(mate.agent for mate in self.at_work.values())):
            agent.environment.bus.emit(kind(agent_id=agent.id, request=data))
