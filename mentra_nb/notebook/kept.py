"""The stored answer of a cell, shown in place of a turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mentra_nb.notebook import kernel
from mentra_nb.notebook.output import show_answer

if TYPE_CHECKING:
    from mentra_nb.chat.chat import Chat
    from mentra_nb.chat.reply import Reply
    from mentra_nb.event.types import TurnOrigin
    from mentra_nb.notebook.references.tokens import Found

SAID = "The stored answer of this cell: nothing was sent. To ask again: --fresh"


def show_kept(chat: Chat, asked: Found, model: str | None, origin: TurnOrigin, *, quiet: bool) -> Reply | None:
    """Show the stored answer of the running cell and return its reply; `None` where there is none that holds."""
    from mentra_nb.chat.again import kept_answer, messages_of
    from mentra_nb.chat.engine import engine

    has_id = kernel.cell_id() is not None
    messages = messages_of(engine(), asked.prompt, asked.references)

    async def find() -> Reply | None:
        return await kept_answer(chat, messages, model, origin, has_id=has_id)

    reply = engine().call(find)
    if reply is None:
        return None
    show_answer(reply, whole=not quiet)
    if not quiet:
        print(SAID)  # noqa: T201
    reply.shown = kernel.execution_count()
    return reply
