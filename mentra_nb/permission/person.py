"""Asking a person for values in the middle of a call: a question as any other, with a card, a deadline, a record."""

from __future__ import annotations

from typing import Any

from mentra_nb.authorization import (
    Subject,
    ToolAuthorizationOutcome,
    ToolAuthorizationPreview,
    ToolAuthorizationRequest,
)
from mentra_nb.forms import Form
from mentra_nb.permission.asking import SessionPermissions


class AskPerson:
    """The service through which a running tool asks: `context.service(AskPerson)`. There is one in each session."""

    def __init__(self, permissions: SessionPermissions) -> None:
        self._permissions = permissions

    async def __call__(self, form: Form, **about: Any) -> dict[str, Any] | None:
        """Return what a person filled in; `None` if nobody could be asked, or they declined or did not answer.

        Args:
            form: What is asked.
            about: The call during which it is asked: `agent_id`, `agent_name`, `model`, `run_id`, `tool_call_id`,
                `tool_name`.
        """
        if not self._permissions.can_ask():
            return None
        form = form.model_copy(update={"is_live": True})
        request = ToolAuthorizationRequest(
            **about,
            preview=ToolAuthorizationPreview(
                working_directory="", structured_input={"kind": "form", "who": form.who, "message": form.message}
            ),
            subject=Subject.text(form.message),
            arguments={"message": form.message},
            form=form,
        )
        decision = await self._permissions.put_question(request, f"{form.who} asks for this to go on", [])
        return decision.values if decision.outcome is ToolAuthorizationOutcome.ALLOW else None
