"""What a person thought of an answer, for the record."""

from __future__ import annotations

from typing import Any, Literal

from mentra_nb.chat.engine import engine
from mentra_nb.chat.reply import Reply


def give(reply: Reply, verdict: Literal["good", "bad"], note: str | None = None) -> None:
    """Record that an answer was good or bad. `mn.feedback()` has a row for each time."""
    from mentra_nb.event.bus import EventBus
    from mentra_nb.event.feedback import FeedbackGiven

    used = engine()
    about: dict[str, Any] = {"run_id": reply.turn_id, "session_id": reply.session, "verdict": verdict, "note": note}

    async def emit() -> None:
        stored = await used.runtime.store.load_conversation(reply.session)
        agent_id = stored.agent.id if stored is not None else ""
        EventBus(used.runtime.hooks, used.runtime.audit).emit(FeedbackGiven(agent_id=agent_id, **about))

    used.call(emit)
