"""Why a turn ended without a whole answer, as one line with what to do about it."""

from __future__ import annotations

from mentra_nb.errors import EmptyAssistantResponse

_ASK_AGAIN = "ask again, or ask another model with -m"
_ENDED = {
    "max_tokens": ("cut off at the limit of tokens of an answer", "ask it to go on"),
    "context_overflow": ("the model's context is full", "go on in a new conversation with -s NAME"),
    "content_filter": ("ended by the provider's content filter", "ask in other words"),
    "refusal": ("the model refused to go on", "ask in other words"),
    "error": ("the model's output was unusable", _ASK_AGAIN),
    "budget": ("a limit of this turn was reached", "ask it to go on"),
    "plan_denied": ("the plan was not approved, and nothing was changed", "for another one ask again with --plan"),
    "stopped": ("the turn was ended early by its strategy", "ask it to go on"),
}

_WHOLE = (None, "", "end", "tool_use", "pause", "ended_by_tool", "cancelled")


def why(stop_reason: str | None, error: BaseException | None = None) -> tuple[str, str] | None:
    """Return why the answer is not whole and what to do; `None` if it is, or if `error` says it already."""
    if error is not None and not isinstance(error, EmptyAssistantResponse):
        return None
    unknown = (f"the answer ended for an unknown reason ({stop_reason})", _ASK_AGAIN)
    reason, advice = ("", "") if stop_reason in _WHOLE else _ENDED.get(stop_reason or "", unknown)
    if error is not None:
        said = f"{reason} ({error.detail})" if reason and error.detail else reason or error.detail
        return f"the answer is empty{f': {said}' if said else ''}", advice or _ASK_AGAIN
    return (reason, advice) if reason else None
