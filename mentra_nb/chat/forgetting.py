"""Deleting a stored conversation."""

from __future__ import annotations

from pathlib import Path

from mentra_nb.chat.api import stored_conversations
from mentra_nb.chat.earlier import known_as, meant
from mentra_nb.chat.engine import engine
from mentra_nb.errors import OperationDenied
from mentra_nb.store.records import ConversationSummary


def forget(said: str) -> ConversationSummary:
    """Delete a conversation of this project with all that is stored of it, and return how it had been used.

    The record keeps what it has of it. Its turns cannot be undone any more.

    Args:
        said: Its id, or the beginning or end of it.

    Raises:
        OperationDenied: there is none like it, or a turn of it is running; nothing was deleted.
        LeaseUnavailable: another process has it; nothing was deleted.
    """
    from mentra_nb.effect.journal import Journal

    used = engine()
    found, store = meant(stored_conversations(), said), used.runtime.store
    session = found.session
    open_here = [chat for chat in {*used.opened, *used.chats.values()} if chat.id == session.id]
    if any(chat.running is not None for chat in open_here):
        raise OperationDenied("a turn of this conversation is running: wait for it, or stop it, before you forget it")
    for chat in open_here:
        chat.close()
    used.call(used.runtime.check_free, session, known_as(found))
    runs = used.call(store.list_runs, session.agent_id)
    jobs = used.call(store.list_jobs, session.agent_id)
    if any(job.status == "running" for job in jobs):
        raise OperationDenied("a command of it runs in the background: %mentra stop --all ends it")
    used.call(store.delete_conversation, session.id)
    for name, chat in list(used.chats.items()):
        if chat in open_here:
            del used.chats[name]
    for job in jobs:
        if job.output_path is not None:
            Path(job.output_path).unlink(missing_ok=True)
    for run in runs:
        Journal().forget(run.id)
    return found
