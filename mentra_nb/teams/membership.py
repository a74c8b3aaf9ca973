"""What an agent keeps for its team: its inbox as a source of messages, and the way of its tools to the team."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mentra_nb.agent.agent import Agent
from mentra_nb.agent.new_turn import companion
from mentra_nb.agent.steering import Boundary
from mentra_nb.content import Message
from mentra_nb.store.records import EntryKind
from mentra_nb.task_board.keeper import TaskKeeper
from mentra_nb.teams.team import Team, team_of
from mentra_nb.teams.texts import in_mail, told
from mentra_nb.tools.schema import ToolError

if TYPE_CHECKING:
    from mentra_nb.store.work_records import TeamMessage


class Membership:
    """A `RoundSource`: at the next request an agent reads the mail that waits for it. Each message reaches it once."""

    def __init__(self, agent: Agent, team: Team | None = None) -> None:
        self._agent = agent
        self._team = team
        self._drained: list[str] = []
        self._folders: set[str] = set()

    @property
    def name(self) -> str:
        """The name by which the others write to the agent."""
        return self._agent.name

    @property
    def team(self) -> Team:
        """The team, by default the one that the agent leads. Raises `OperationDenied` for a subagent."""
        if self._team is None:
            self._team = team_of(self._agent)
        return self._team

    @property
    def is_lead(self) -> bool:
        """Whether the agent leads the team."""
        return self.team.lead is self._agent

    def folder(self) -> str | None:
        """Return the folder of the open tasks that the agent owns. Raises `ToolError` if there are several."""
        if len(self._folders) > 1:
            several = ", ".join(sorted(self._folders))
            raise ToolError(f"your tasks are in several folders ({several}): give workingDirectory")
        return next(iter(self._folders), None)

    def is_waiting(self, at: Boundary) -> bool:
        """Return whether mail waits, or it is unknown; a teammate looks at its tasks each time."""
        if at is not Boundary.ROUND or self._agent.home is None:
            return False
        return not self.team.is_loaded or self.team.unread(self.name) > 0 or not self.is_lead

    async def drain(self, at: Boundary) -> list[tuple[EntryKind, Message]]:
        """Return the mail that waits, oldest first."""
        await self.team.load()
        if not self.is_lead:
            await self._find_folders()
        if not self.team.unread(self.name):
            return []
        return [("canonical_context", in_mail(message)) for message in await self.take()]

    async def take(self) -> list[TeamMessage]:
        """Take the mail that waits, until the turn ends, without what the conversation has already."""
        messages = await self.team.take(self.name)
        self._drained += [message.id for message in messages]
        transcript = self._agent.transcript
        known = told(await transcript.store.load_path(self._agent.id, transcript.leaf)) if messages else set()
        return [message for message in messages if message.id not in known]

    async def acknowledge(self) -> None:
        """Forget the mail that was drained: it is part of the conversation."""
        drained, self._drained = self._drained, []
        if drained:
            await self.team.acknowledge(self.name, drained)

    async def requeue(self) -> None:
        """Put the mail that was drained back."""
        drained, self._drained = self._drained, []
        if drained:
            await self.team.put_back(self.name, drained)

    async def forget_known(self) -> None:
        """Forget the mail that the conversation has: the process died before it could be acknowledged."""
        await self.team.load()
        new = [message.id for message in await self.take()]
        drained, self._drained = self._drained, []
        await self.team.acknowledge(self.name, [each for each in drained if each not in new])
        await self.team.put_back(self.name, new)

    async def _find_folders(self) -> None:
        own = [task for task in await companion(self._agent, TaskKeeper).tasks() if task.owner == self.name]
        self._folders = {
            task.working_directory for task in own if task.status != "completed" and task.working_directory
        }
