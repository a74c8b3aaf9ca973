"""The stored conversations of a project: how each is named to a person, and which one a person means."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from mentra_nb.chat.identity import word_for
from mentra_nb.chat.turn import RunningTurn
from mentra_nb.errors import OperationDenied
from mentra_nb.ids import short_id
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


async def tell_of_earlier(
    turn: RunningTurn, store: RuntimeStore, project: str | None, notebook: str | None, before: float
) -> None:
    """Show one line about the last conversation of this notebook that was used `before`, if there is one.

    Args:
        before: Unix seconds.
    """
    stored = await store.list_conversations(project, notebook) if notebook is not None else []
    earlier = [found for found in stored if found.used_at < before]
    if earlier:
        last = earlier[-1]
        turn.notice(
            f"This is a new conversation. Earlier in this notebook: '{title(last)}', {use_of(last)}. "
            f"To go back to it: %mentra resume {known_as(last)}"
        )
