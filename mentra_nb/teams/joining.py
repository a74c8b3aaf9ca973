"""How a teammate joins a team: as a new agent, or again after a restart."""

from __future__ import annotations

from collections.abc import Sequence
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
from mentra_nb.tools.profile import allows

HIDDEN = ("team_spawn", "team_broadcast", "task_create")
"""Tools of a lead that its teammates are not offered."""


async def spawn(
    team: Team,
    name: str,
    role: str,
    prompt: str = "",
    *,
    tools: Sequence[str] | None = None,
    model: ModelInfo | None = None,
) -> TeamMember:
    """Make a teammate that works from now on, and return it. A stored member that is not at work is replaced.

    It has the policy and permissions of the lead, and its model unless `model` is another. `prompt` is its first mail.
    `tools` is a profile, as of `Session.use_profile`: which of the lead's tools it is offered, by default all.

    Raises:
        OperationDenied: the name cannot be used, too many are at work, or the lead has no tool of a name in `tools`.
        ProviderNotFound: that of `model` was never used.
    """
    await team.load()
    name, role, lead = name.strip(), role.strip(), team.lead
    team.check_new(name, role)
    team.note_turn()
    config = lead.config.model_copy(
        update={
            "system": texts.system(lead.config.system, name, role, lead.name),
            "tools": _offered(lead, tools) if tools is not None else lead.config.tools,
            "hidden_tools": (*lead.config.hidden_tools, *HIDDEN),
            "task_board": lead.config.task_board or lead.id,
            "teammate": name,
            "loaded_tools": (),
            "planning": False,
        }
    )
    used = model or ModelInfo(id=lead.model, provider=lead.provider.descriptor.id)
    environment = replace(lead.environment, bus=lead.environment.bus.child())
    agent = await _maker(lead).create(name, used, config, environment, kind="teammate", parent_id=lead.id)
    mate = team.at_work[name] = Teammate(team, agent)
    await team.save(TeamMember(id=agent.id, name=name, role=role, model=used.id), TeammateSpawned)
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


def _offered(lead: Agent, profile: Sequence[str]) -> tuple[str, ...]:
    """Return the tools of the lead that a profile names. Raises `OperationDenied` for a name that no tool has."""
    names = [name for name in lead.environment.tools if lead.config.offers(name)]
    for each in profile:
        if "*" not in each and each.removeprefix("-") not in names:
            raise OperationDenied(
                f"the conversation has no tool '{each}'; it has: {', '.join(sorted(names)) or 'none'}"
            )
    return tuple(name for name in names if allows(profile, name))


def _maker(lead: Agent) -> AgentMaker:
    if lead.home is None or lead.home.maker is None:
        raise OperationDenied("a subagent is not a member of a team")
    return lead.home.maker
