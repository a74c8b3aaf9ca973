"""A teammate at work: one task of the event loop that takes its turns, one after another, whenever something wakes it.

It is woken by mail, by an answer to its request, by the end of its background commands, and when it is revived.
"""

from __future__ import annotations

import logging
from collections import ChainMap
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anyio

from mentra_nb.agent.agent import Agent
from mentra_nb.agent.environment import AgentEnvironment
from mentra_nb.agent.limits import RunOptions
from mentra_nb.agent.new_turn import companion
from mentra_nb.agent.waking import REVIEW
from mentra_nb.background.afterwards import Afterwards
from mentra_nb.background.jobs import Jobs
from mentra_nb.content import Message, TokenUsage
from mentra_nb.errors import EmptyAssistantResponse, MentraError, NoResumableTurn, OperationDenied
from mentra_nb.event import types as e
from mentra_nb.task_board.keeper import TaskKeeper
from mentra_nb.teams import texts
from mentra_nb.teams.membership import Membership
from mentra_nb.tools.tool import WorkFolder

if TYPE_CHECKING:
    from mentra_nb.teams.team import Team

log: logging.Logger = logging.getLogger(__name__)

MAX_ROUNDS = 50
"""Answers of one turn."""
MOST_TURNS = 100
"""Turns that a teammate takes after the last one of its lead began."""


class Teammate:
    """One member of a team while it is at work."""

    def __init__(self, team: Team, agent: Agent, *, is_revived: bool = False) -> None:
        self.agent = agent
        self.usage: TokenUsage = TokenUsage()
        self.last: str = ""
        self.is_busy: bool = True
        self._team, self._is_revived = team, is_revived
        self._woken = anyio.Event()
        self._turns = self._generation = 0
        self._membership = Membership(agent, team)
        agent.companions[Membership] = self._membership
        agent.add_source(self._membership)
        companion(agent, TaskKeeper)
        self._use(agent.environment)

    def __repr__(self) -> str:
        return f"<Teammate {self.agent.name!r}: {'busy' if self.is_busy else 'idle'}>"

    def use_environment_of(self, lead: Agent) -> None:
        """Use the permissions, tools and events of another object for the same lead, from the next turn on."""
        self._use(replace(lead.environment, bus=lead.environment.bus.child()))

    def _use(self, environment: AgentEnvironment) -> None:
        route: dict[type, Any] = {WorkFolder: WorkFolder(self._membership.folder)}
        services = ChainMap(route, cast("dict[type, Any]", environment.services))
        self.agent.environment = replace(environment, services=services)
        environment.bus.tap(self._hear)

    def _hear(self, event: e.AgentEvent) -> None:
        if isinstance(event, e.TurnFinished):
            self.usage = self.usage + event.usage
        elif getattr(event, "kind", "") == "tasks_updated":
            self._team.hear(event)

    def begin(self) -> None:
        """Go to work on the event loop, until it is shut down or the runtime is closed."""
        self.agent.environment.services[Afterwards].live(self._live())

    def wake(self) -> None:
        """Let it look for something to do."""
        self.is_busy = True
        self._woken.set()

    async def _live(self) -> None:
        name, team = self.agent.name, self._team
        try:
            if self._is_revived:
                await self._turn(self._resumed)
                await self._membership.forget_known()
            while True:
                self._woken = anyio.Event()
                succeeded = await self._work()
                if succeeded and name in team.leaving:
                    break
                await self._wait(succeeded=succeeded)
            await team.set_status(name, "shutdown")
            await self.agent.close()
        finally:
            self.is_busy = False
            team.at_work.pop(name, None)
            team.leaving.discard(name)
            team.pulse()

    async def _work(self) -> bool:
        """Take turns until there is nothing left to do. Returns whether none failed; after one that did, it waits."""
        while (prompt := await self._next()) is not None:
            if not await self._turn(partial(self.agent.run, prompt)):
                return False
        return True

    async def _next(self) -> str | None:
        """Return the prompt of the next turn; `None` if there is nothing to do."""
        team, name = self._team, self.agent.name
        if team.unread(name):
            return texts.INBOX
        if self.agent.environment.services[Jobs].is_waiting(self.agent.id):
            return REVIEW
        if not team.config.claims or name in team.leaving:
            return None
        keeper = companion(self.agent, TaskKeeper)
        if any(task.owner == name and task.status != "completed" for task in await keeper.tasks()):
            return None
        await keeper.requeue()  # what a failed turn has changed; the claim is not part of any turn
        try:
            task = await keeper.change(lambda board: board.claim())
        except OperationDenied:
            return None
        await keeper.acknowledge()
        return texts.claimed(task)

    async def _turn(self, take: Callable[[RunOptions, e.TurnOrigin], Awaitable[Message]]) -> bool:
        """Take a turn, and store what came of it. Returns whether it succeeded."""
        team, name, lead = self._team, self.agent.name, self._team.lead
        if lead.run_generation != self._generation:
            self._turns, self._generation = 0, lead.run_generation
        self._turns += 1
        self.is_busy, options = True, team.options(MAX_ROUNDS)
        try:
            if self._turns > MOST_TURNS:
                raise OperationDenied(f"it took {MOST_TURNS} turns since the last one of '{lead.name}' began")
            await team.set_status(name, "working")
            self.last = (await take(options, team.origin())).text()
        except EmptyAssistantResponse as empty:
            if options.ended_early is not None:  # else it did its work, and had nothing to say
                await team.set_status(name, "failed", str(empty))
                return False
        except Exception as error:
            if not isinstance(error, MentraError):
                log.exception("a turn of teammate '%s' failed", name)
            await self._membership.requeue()
            await team.set_status(name, "failed", str(error) or type(error).__name__)
            return False
        await team.set_status(name, "idle")
        return True

    async def _resumed(self, options: RunOptions, origin: e.TurnOrigin) -> Message:
        """Go on with the turn in which its process died or was closed, if there is one."""
        try:
            return await self.agent.resume(options, origin)
        except NoResumableTurn:
            return Message.assistant([])

    async def _wait(self, *, succeeded: bool) -> None:
        """Wait until something wakes it. After a failure the end of a command does not; mail does."""
        self.is_busy = self._woken.is_set()
        self._team.pulse()
        jobs = self.agent.environment.services[Jobs]
        with anyio.move_on_after(self._team.config.idle_timeout if succeeded else None) as timer:
            async with anyio.create_task_group() as group:

                async def until(wait: Callable[[], Awaitable[object]]) -> None:
                    await wait()
                    group.cancel_scope.cancel()

                group.start_soon(until, self._woken.wait)
                if succeeded:
                    group.start_soon(until, partial(jobs.wait_for_news, self.agent.id))
        if timer.cancelled_caught and not self._woken.is_set():
            self._team.leaving.add(self.agent.name)
        self.is_busy = True
