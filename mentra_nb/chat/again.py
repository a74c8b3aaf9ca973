"""The stored answer of a cell that is run again, in place of a turn."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mentra_nb.chat.cell_runs import Kept
from mentra_nb.content import Message, Role, TokenUsage

if TYPE_CHECKING:
    from mentra_nb.chat.chat import Chat
    from mentra_nb.chat.engine import Engine
    from mentra_nb.chat.reply import Reply
    from mentra_nb.event.types import TurnOrigin
    from mentra_nb.store.protocols import RuntimeStore
    from mentra_nb.store.records import ConversationSummary, Entry, StoredConversation

LOOKED_THROUGH = 20
"""Conversations of a notebook in which a stored answer is looked for, from the one used last on."""


async def kept_answer(
    chat: Chat, messages: Sequence[Message], model: str | None, origin: TurnOrigin, *, has_id: bool
) -> Reply | None:
    """Return the stored answer of a cell, if its question, its model and what was said before did not change.

    Nothing is sent. Runs on the engine's thread.

    Args:
        chat: The conversation. The notebook's own becomes the earlier one that has the answer.
        messages: What the turn of the cell would begin with: one of these.
        model: The model it names.
        origin: The cell.
        has_id: Whether the front end gives cells ids that last. Without one only turns of earlier kernels count, since
            two cells with the same text cannot be told apart.
    """
    used, store = chat._engine, chat._engine.runtime.store
    name = await _model_name(used, model or chat.model)
    for stored, earlier, any_turn in await _where(chat, used):
        for n, kept in enumerate(await _turns(store, stored)):
            run = kept.run
            fits = run.cell_id == origin.cell_id and run.model == name and kept.entries[0].message in messages
            if not fits or (n and not any_turn) or chat._cells.was_shown(origin, run.id):
                continue
            if not has_id and run.started_at >= used.began:
                continue
            if earlier is not None:
                from mentra_nb.chat.earlier import is_free, take_over

                if not await is_free(used.runtime, earlier):
                    break
                await take_over(store, chat._identity, earlier)
            chat._cells.show(origin, kept, has_id=has_id)
            chat.last = await _reply(store, kept)
            return chat.last
    return None


def messages_of(used: Engine, prompt: str, objects: Sequence[Any]) -> list[Message]:
    """Return what a turn would begin with: for a model that takes pictures, and for one that does not.

    Runs on the cell's thread, as it looks at the objects that are handed over.
    """
    if objects:
        from mentra_nb.chat.references.handing import handed

        if (given := handed(objects, used.policy)) is not None:
            return [Message.user(given.content(prompt, with_images=takes)) for takes in (True, False)]
    return [Message.user(prompt)]


async def _model_name(used: Engine, name: str | None) -> str:
    """Return the model that would be asked, as provider/model. A key is not needed where it is named in full."""
    from mentra_nb.chat.models import choose

    choice = choose(name, used.settings, os.environ, registered=used.registered())
    return f"{choice.provider}/{choice.model}" if choice.model is not None else str(await used.model(name))


async def _where(chat: Chat, used: Engine) -> Iterable[tuple[StoredConversation, ConversationSummary | None, bool]]:
    """Return the conversations to look in, whether each is one of an earlier kernel, and whether any turn may fit.

    Of earlier ones only the last may have the answer anywhere; the others must begin with it, and so must all of them
    where nobody is at the page, since there each run of a notebook has a conversation of its own.
    """
    from mentra_nb.chat.earlier import of_earlier_kernels
    from mentra_nb.chat.turn import presenter

    store, identity = used.runtime.store, chat._identity
    if not identity.is_unknown:
        found = await store.load_conversation(await identity.session_id(store), identity.project)
        return [(found, None, True)] if found is not None else []
    if used.chats.get(None) is not chat:
        return []
    screen, where = presenter(), []
    goes_on = screen is not None and screen.is_watched() and screen.goes_on()
    earlier = await of_earlier_kernels(store, identity.project, chat.notebook, used.began)
    for n, each in enumerate(reversed(earlier[-LOOKED_THROUGH:])):
        if (stored := await store.load_conversation(each.session.id)) is not None:
            where.append((stored, each, goes_on and n == 0))
    return where


async def _turns(store: RuntimeStore, stored: StoredConversation) -> list[Kept]:
    """Return the turns on the path of a conversation that have ended with an answer."""
    if stored.session is None:
        return []
    runs = {run.id: run for run in await store.list_runs(stored.agent.id)}
    first: dict[str, str] = {}  # turn → the one that it continues, or itself
    for run in runs.values():
        first[run.id] = first.get(run.resumes or "", run.id)
    found: dict[str, list[Entry]] = {}
    for entry in await store.load_path(stored.agent.id, stored.agent.leaf):
        if entry.run_id in first:
            found.setdefault(first[entry.run_id], []).append(entry)
    return [
        Kept(runs[id], entries, stored.session.id)
        for id, entries in found.items()
        if runs[entries[-1].run_id or ""].state == "finished" and _is_answer(entries[-1].message)
    ]


def _is_answer(message: Message) -> bool:
    return message.role is Role.ASSISTANT and bool(message.text()) and not message.tool_uses()


async def _reply(store: RuntimeStore, kept: Kept) -> Reply:
    """Return the reply of a stored turn. It has used nothing now."""
    from mentra_nb.chat.reply import Reply, ToolCallSummary

    ids = dict.fromkeys(entry.run_id for entry in kept.entries if entry.run_id is not None)
    calls = [call for id in ids for call in await store.list_tool_calls(id)]
    texts = [entry.message.text() for entry in kept.entries if entry.message.role is Role.ASSISTANT]
    code = [str(call.arguments.get("code", "")).rstrip("\n") for call in calls if call.tool == "python"]
    return Reply(
        text=texts[-1],
        model=kept.run.model or "",
        session=kept.session_id,
        turn_id=list(ids)[-1],
        stop_reason="kept",
        seconds=0.0,
        usage=TokenUsage(input_tokens=0, output_tokens=0),
        cost=0.0,
        tools=[
            ToolCallSummary(
                call.tool,
                "",
                bool(call.is_error),
                None if call.finished_at is None else round((call.finished_at - call.started_at) * 1000),
            )
            for call in calls
        ],
        rounds=texts,
        code="\n\n".join(code),
    )
