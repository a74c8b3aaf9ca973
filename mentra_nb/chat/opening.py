"""The session of a conversation for its next turn: the open one, a stored one, or a new one."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Protocol

from mentra_nb.agent.config import AgentConfig
from mentra_nb.chat.earlier import find_earlier, move_rules
from mentra_nb.chat.identity import Identity
from mentra_nb.chat.instructions import SYSTEM
from mentra_nb.chat.models import choose

if TYPE_CHECKING:
    from mentra_nb.chat.engine import Engine
    from mentra_nb.chat.turn import RunningTurn, TurnPlan
    from mentra_nb.runtime.session import Session
    from mentra_nb.tools.tool import Tool

DEMO = "demo"
ONLY_DEMO = "Until now only the demo has answered here, so this is a new conversation."


class Conversation(Protocol):
    """What a `Chat` has."""

    system: str | None
    notebook: str | None
    _session: Session | None
    _identity: Identity
    _tools: dict[str, Tool]

    @property
    def _engine(self) -> Engine: ...


async def opened(chat: Conversation, turn: RunningTurn) -> Session:
    """Return the session of a conversation, with the model of a turn. Runs on the engine's thread.

    The notebook's own conversation begins anew when a real model follows the demo: it cannot use what a script said.
    """
    used, identity, plan = chat._engine, chat._identity, turn.plan
    if plan.model is not None:  # a name that is not known opens no store
        choose(plan.model, used.settings, os.environ, registered=used.registered())
    if (session := chat._session) is not None:
        own, is_demo = used.chats.get(None) is chat, session.model.provider == DEMO
        if not (own and is_demo and await _only_demo(used, plan, session.agent.id)):
            session.use_model(await used.model(plan.model_instead_of(session.model), turn))
            return session
        await session.close()
        identity = chat._identity = Identity(None)
        await move_rules(used.runtime.store, session.id, identity.id, session.project)
        turn.notice(ONLY_DEMO)
    elif plan.earlier and identity.is_unknown:
        leaves = partial(_only_demo, used, plan)
        if await find_earlier(turn, used.runtime, identity, chat.notebook, used.began, leaves):
            turn.notice(ONLY_DEMO)
    session = chat._session = await used.runtime.open_session(
        identity.known_as,
        lambda stored: used.model(plan.model_instead_of(stored), turn),
        AgentConfig(system=SYSTEM if chat.system is None else chat.system),
        identity.project,
        last=identity.known_as is None and plan.prompt is None,
        create=plan.prompt is not None,
        notebook=chat.notebook,
        tools=chat._tools,
        session_id=identity.id,
    )
    return session


def take_settings(chat: Conversation, session: Session) -> None:
    """Note that a session is the open one of a conversation, and let the settings as they are now hold in it."""
    used, permissions = chat._engine, session.permissions
    chat._identity.opened(session)
    used.opened.add(chat)
    permissions.ask, permissions.ask_timeout = used.settings.ask, used.settings.ask_timeout
    permissions.sandbox = used.settings.sandbox
    session.use_policy(used.policy())
    session.use_profile(used.abilities.profile(used.settings))


async def opened_beside(chat: Conversation, plan: TurnPlan) -> Session:
    """Return the session of a conversation for what is not a turn of it. Nobody is asked before a turn is taken."""
    from mentra_nb.chat.turn import RunningTurn

    if chat._session is not None:
        return chat._session
    turn = RunningTurn()
    turn.plan = plan
    session = await opened(chat, turn)
    take_settings(chat, session)
    session.permissions.can_ask = lambda: False
    return session


async def _only_demo(used: Engine, plan: TurnPlan, agent_id: str) -> bool:
    """Return whether the demo took all turns of an agent, and a real model is to take the next.

    Raises:
        ConfigurationError: the model of the next turn is unknown or ambiguous.
    """
    if plan.prompt is None or plan.woken_by is not None:
        return False
    if choose(plan.model, used.settings, os.environ, registered=used.registered()).provider == DEMO:
        return False
    return all(run.model == f"{DEMO}/{DEMO}" for run in await used.runtime.store.list_runs(agent_id))
