"""The stored conversations of a project: how each is named to a person, and which one a person means."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Literal

from mentra_nb.authorization import PermissionRule
from mentra_nb.chat.identity import Identity, word_for
from mentra_nb.chat.turn import Presenter, RunningTurn
from mentra_nb.errors import LeaseUnavailable, OperationDenied
from mentra_nb.ids import new_id, short_id
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.store.protocols import RuntimeStore
from mentra_nb.store.records import ConversationSummary
from mentra_nb.words import counted

WORDS = 48
"""Characters shown of a first prompt."""
LISTED = 5
"""Conversations named in an error."""


def title(found: ConversationSummary) -> str:
    """Return its name, or without one the first words of its first prompt."""
    text = found.session.given_name or " ".join((found.first_prompt or "").split()) or short_id(found.session.id)
    text = "".join(character if character.isprintable() else "\ufffd" for character in text)
    return text if len(text) <= WORDS else text[: WORDS - 1].rstrip() + "…"


def use_of(found: ConversationSummary) -> str:
    """Return how many turns it has and when the last one began, in local time."""
    return f"{counted(found.turns, 'turn')}, last {datetime.fromtimestamp(found.used_at):%Y-%m-%d %H:%M}"


def known_as(found: ConversationSummary) -> str:
    """Return what `%mentra resume` finds it by."""
    return word_for(found.session.given_name, found.session.id)


def meant(stored: Sequence[ConversationSummary], said: str) -> ConversationSummary:
    """Return the conversation that is meant: by its name, its id, or the beginning or end of its id.

    Raises:
        OperationDenied: none or more than one fits; the message says which there are.
    """
    part = said.removeprefix("session-")
    named = [found for found in stored if said in (found.session.id, found.session.name)]
    if named:
        return named[-1]
    ids = [found.session.id.removeprefix("session-") for found in stored]
    fits = [n for n, id in enumerate(ids) if len(part) >= 4 and (id.startswith(part) or id.endswith(part))]
    if len(fits) == 1:
        return stored[fits[0]]
    if fits:
        raise OperationDenied(f"{len(fits)} conversations fit '{said}': %mentra sessions lists them with their ids")
    there = [f"'{title(found)}' ({known_as(found)})" for found in reversed(stored[-LISTED:])]
    more = f" and {len(stored) - LISTED} more, see %mentra sessions" if len(stored) > LISTED else ""
    known = f"there are {', '.join(there)}{more}" if there else "this project has none yet"
    raise OperationDenied(f"there is no conversation '{said}': {known}")


def about_earlier(screen: Presenter | None) -> Literal["", "say", "go on"]:
    """Return what the notebook's own conversation does about that of an earlier kernel: nothing where nobody is."""
    if screen is None or not screen.is_watched():
        return ""
    return "go on" if screen.goes_on() else "say"


async def of_earlier_kernels(
    store: RuntimeStore, project: str | None, notebook: str | None, before: float
) -> list[ConversationSummary]:
    """Return the conversations of a notebook that were used last `before` (Unix seconds), the last one at the end."""
    stored = await store.list_conversations(project, notebook) if notebook is not None else []
    return [found for found in stored if found.used_at < before]


async def find_earlier(
    turn: RunningTurn,
    runtime: Runtime,
    identity: Identity,
    notebook: str | None,
    before: float,
    leaves: Callable[[str], Awaitable[bool]],
) -> bool:
    """Go on with the last conversation of this notebook that was used `before`, if there is one, and say so in a line.

    Where the plan of the turn has it only said, or another process has that conversation, a new one begins. Returns
    whether it is left without a word.

    Args:
        turn: What the line is shown in.
        runtime: Where the conversations are stored.
        identity: What is made that conversation.
        notebook: The notebook.
        before: Unix seconds.
        leaves: Says of the id of its agent whether it is left.
    """
    earlier = await of_earlier_kernels(runtime.store, identity.project, notebook, before)
    if not earlier:
        return False
    last = earlier[-1]
    if await leaves(last.session.agent_id):
        return True
    name = f"'{title(last)}', {use_of(last)}"
    if turn.plan.earlier == "go on" and await is_free(runtime, last):
        await take_over(runtime.store, identity, last)
        turn.notice(f"Going on with {name}. To start anew: %mentra --new and the question")
        return False
    turn.notice(
        f"This is a new conversation. Earlier in this notebook: {name}. "
        f"To go back to it: %mentra resume {known_as(last)}"
    )
    return False


async def is_free(runtime: Runtime, found: ConversationSummary) -> bool:
    """Return whether no other process has the conversation."""
    try:
        await runtime.check_free(found.session, known_as(found))
    except LeaseUnavailable:
        return False
    return True


async def take_over(store: RuntimeStore, identity: Identity, found: ConversationSummary) -> None:
    """Make `identity` a stored conversation. Rules made for it before hold in that one."""
    await move_rules(store, identity.id, found.session.id, identity.project)
    identity.opened(found.session)


async def move_rules(store: RuntimeStore, before: str, after: str, project: str | None) -> None:
    """Let the rules of the session `before` hold in the session `after` instead."""
    for rule in await copy_rules(store, before, after, project):
        await store.revoke_rule(rule.id)


async def copy_rules(store: RuntimeStore, before: str, after: str, project: str | None) -> list[PermissionRule]:
    """Let the rules of the session `before` hold in the session `after` as well, and return them."""
    rules = [rule for rule in await store.list_rules(before, project) if rule.scope == "session"]
    for rule in rules:
        await store.save_rule(rule.model_copy(update={"id": new_id("rule"), "scope_key": after}))
    return rules
