"""How a teammate joins a team: as a new agent, or again after a restart."""

from __future__ import annotations

from dataclasses import replace

from mentra_nb.agent.agent import Agent
from mentra_nb.agent.home import AgentMaker
from mentra_nb.errors import OperationDenied
from mentra_nb.event.rare import TeammateSpawned
from mentra_nb.providers.base import ModelInfo
from mentra_nb.store.work_records import TeamMember
from mentra_nb.teams import texts
from mentra_nb.teams.team import Team
from mentra_nb.teams.teammate import Teammate

HIDDEN = ("team_spawn", "team_broadcast", "task_create")
"""Tools of a lead that its teammates are not offered."""


async def spawn(team: Team, name: str, role: str, prompt: str = "") -> TeamMember:
    """Make a teammate that works from now on, and return it. A stored member that is not at work is replaced.

    It has the model, tools, policy and permissions of the lead. `prompt` is its first mail.

    Raises:
        OperationDenied: the name cannot be used, or too many are at work.
    """
    await team.load()
    name, role, lead = name.strip(), role.strip(), team.lead
    team.check_new(name, role)
    team.note_turn()
    config = lead.config.model_copy(
        update={
            "system": texts.system(lead.config.system, name, role, lead.name),
            "hidden_tools": (*lead.config.hidden_tools, *HIDDEN),
            "task_board": lead.config.task_board or lead.id,
            "teammate": name,
            "loaded_tools": (),
            "planning": False,
        }
    )
    model = ModelInfo(id=lead.model, provider=lead.provider.descriptor.id)
    environment = replace(lead.environment, bus=lead.environment.bus.child())
    agent = await _maker(lead).create(name, model, config, environment, kind="teammate", parent_id=lead.id)
    mate = team.at_work[name] = Teammate(team, agent)
    await team.save(TeamMember(id=agent.id, name=name, role=role, model=lead.model), TeammateSpawned)
    if prompt.strip():
        await team.send(lead.name, name, prompt)
    mate.begin()
    return team.member(name)


async def revive(team: Team) -> list[TeamMember]:
    """Put the stored members to work again that were not shut down, and return them."""
    await team.load()
    revived = []
    for member in team.members():
        if member.status == "dormant":
            environment = replace(team.lead.environment, bus=team.lead.environment.bus.child())
            agent = await _maker(team.lead).load(member.id, environment)
            mate = team.at_work[member.name] = Teammate(team, agent, is_revived=True)
            await team.save(member.model_copy(update={"status": "idle", "failure": None}), TeammateSpawned)
            mate.begin()
            revived.append(team.member(member.name))
    return revived


def _maker(lead: Agent) -> AgentMaker:
    if lead.home is None or lead.home.maker is None:
        raise OperationDenied("a subagent is not a member of a team")
    return lead.home.maker
