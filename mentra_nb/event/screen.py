"""What a screen is shown of what happens: `SessionEvent`, as `projections.py` makes it of agent events."""

from typing import Any, Literal

from mentra_nb.authorization import PermissionScope
from mentra_nb.content import Data


class SessionEvent(Data):
    """Something a screen may want to show."""

    type: str


class SessionStarted(SessionEvent):
    type: Literal["session_started"] = "session_started"
    session_id: str


class UserMessage(SessionEvent):
    type: Literal["user_message"] = "user_message"
    text: str
    model: str = ""
    """The model that is asked, as provider/model."""


class AssistantTokenDelta(SessionEvent):
    type: Literal["assistant_token_delta"] = "assistant_token_delta"
    delta: str


class AssistantReasoningDelta(SessionEvent):
    type: Literal["assistant_reasoning_delta"] = "assistant_reasoning_delta"
    delta: str


class AssistantMessageCompleted(SessionEvent):
    type: Literal["assistant_message_completed"] = "assistant_message_completed"
    text: str


class ToolQueued(SessionEvent):
    type: Literal["tool_queued"] = "tool_queued"
    tool_call_id: str
    tool_name: str
    summary: str
    mutability: Literal["read_only", "mutating", "unknown"]
    input_json: str


class ToolStarted(SessionEvent):
    type: Literal["tool_started"] = "tool_started"
    tool_call_id: str
    tool_name: str


class ToolDecided(SessionEvent):
    """Whether a call may run, who decided it, and the pattern of the rule if one did."""

    type: Literal["tool_decided"] = "tool_decided"
    tool_call_id: str
    tool_name: str
    allowed: bool
    decided_by: str = ""
    pattern: str | None = None
    reason: str | None = None


class ToolProgress(SessionEvent):
    type: Literal["tool_progress"] = "tool_progress"
    tool_call_id: str
    tool_name: str
    progress: str


class ToolCompleted(SessionEvent):
    type: Literal["tool_completed"] = "tool_completed"
    tool_call_id: str
    tool_name: str
    summary: str
    is_error: bool
    duration_ms: int | None = None
    output: str = ""
    """The result, cut at a bound for screens; `summary` is its beginning."""


class QuestionAsked(SessionEvent):
    """A question is open; `request_id` names it among the session's open questions."""

    type: Literal["permission_requested"] = "permission_requested"
    request_id: str
    tool_call_id: str
    tool_name: str
    description: str
    preview: str
    """The structured input as JSON text."""
    agent_id: str = ""


class QuestionAnswered(SessionEvent):
    type: Literal["permission_resolved"] = "permission_resolved"
    request_id: str
    tool_call_id: str
    tool_name: str
    outcome: Literal["allowed", "denied"]
    rule_scope: PermissionScope | None = None
    decided_by: str = "user"
    reason: str | None = None
    pattern: str | None = None
    """The pattern of the rule that was made with the answer."""


class QuestionAdvised(SessionEvent):
    """Advice of a model on an open question. It decides nothing."""

    type: Literal["permission_advised"] = "permission_advised"
    request_id: str
    tool_call_id: str
    tool_name: str
    risk: Literal["low", "medium", "high", "unknown"]
    reason: str


class TaskUpdated(SessionEvent):
    type: Literal["task_updated"] = "task_updated"
    task_id: str
    kind: Literal["subagent", "background_task", "teammate"]
    status: Literal["spawned", "running", "finished", "failed"]
    title: str
    detail: str | None = None


class TasksUpdated(SessionEvent):
    """The task board has changed: all its tasks, by id, with the names that a model reads."""

    type: Literal["tasks_updated"] = "tasks_updated"
    tasks: tuple[dict[str, Any], ...]


class CompactionStarted(SessionEvent):
    type: Literal["compaction_started"] = "compaction_started"
    agent_id: str


class CompactionCompleted(SessionEvent):
    type: Literal["compaction_completed"] = "compaction_completed"
    agent_id: str
    replaced_items: int
    preserved_items: int
    resulting_transcript_len: int
    extracted_facts_count: int
    summary_preview: str


class HistoryBranched(SessionEvent):
    type: Literal["branched"] = "branched"
    entry_id: str | None
    abandoned_entries: int


class MemoryRecalled(SessionEvent):
    """A turn is given memories: the lines that quote them, as the model reads them."""

    type: Literal["memory_recalled"] = "memory_recalled"
    lines: tuple[str, ...]


class MemoryUpdated(SessionEvent):
    type: Literal["memory_updated"] = "memory_updated"
    agent_id: str
    stored_records: int


class Notice(SessionEvent):
    type: Literal["notice"] = "notice"
    severity: Literal["info", "warning"]
    message: str


class RetryNotice(SessionEvent):
    type: Literal["retry_attempt"] = "retry_attempt"
    agent_id: str
    error_message: str
    attempt: int
    max_attempts: int
    next_delay_ms: int


class UsageReported(SessionEvent):
    type: Literal["usage_report"] = "usage_report"
    agent_id: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_creation_tokens: int


class SessionError(SessionEvent):
    type: Literal["error"] = "error"
    message: str
    recoverable: bool


_BY_TYPE: dict[str, type[SessionEvent]] = {
    cls.model_fields["type"].default: cls for cls in SessionEvent.__subclasses__()
}


def session_event_from_json(payload: dict[str, Any]) -> SessionEvent:
    """Return the event of a JSON object. Raises `KeyError` for a type this version does not know."""
    return _BY_TYPE[payload["type"]].model_validate(payload)
