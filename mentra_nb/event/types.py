"""What happens, said once: `AgentEvent` is emitted; `RuntimeEvent` (audit) is what is recorded of it.

A `RuntimeEvent` is an `AgentEvent` that is recorded; no other is. What each looks like on a screen is the table in
`projections.py`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from mentra_nb.authorization import (
    PermissionScope,
    ToolAuthorizationOutcome,
    ToolAuthorizationPreview,
)
from mentra_nb.content import Data, Message, TokenUsage, ToolUse
from mentra_nb.event.pieces import AgentEvent as AgentEvent
from mentra_nb.event.pieces import ReasoningDelta as ReasoningDelta
from mentra_nb.event.pieces import TextDelta as TextDelta
from mentra_nb.event.pieces import ToolUseUpdated as ToolUseUpdated


class _Fact(Data, AgentEvent):
    """An event whose fields are checked, and that has a JSON form."""

    agent_id: str


# ---- seen while it happens; not recorded as such --------------------------------------------------------------


class TurnOrigin(Data):
    """Where a turn came from. Every field is optional: a program has no cell.

    Example:
        >>> mn.TurnOrigin(notebook="sales.ipynb", execution_count=3).notebook
        'sales.ipynb'
    """

    session_id: str | None = None
    cell_id: str | None = None
    execution_count: int | None = None
    notebook: str | None = None
    project: str | None = None


class RetryAttempt(_Fact):
    error_message: str
    attempt: int
    max_attempts: int
    next_delay_ms: int


class ToolUseReady(_Fact):
    index: int
    call: ToolUse


class AssistantMessageCommitted(_Fact):
    message: Message


class ToolCallStarted(_Fact):
    """The scheduler took up a call; it is not authorized yet."""

    call: ToolUse


class ToolExecutionProgress(_Fact):
    id: str
    name: str
    progress: str


class UsageReport(_Fact):
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0


class SubagentSpawned(_Fact):
    """`agent_id` gave a task to a subagent."""

    subagent_id: str
    name: str
    model: str


class SubagentFinished(_Fact):
    subagent_id: str
    name: str
    error: str | None = None
    """Why it failed, when it did."""


class Branched(_Fact):
    """The conversation goes on from `entry_id`; `abandoned_entries` are off its path now."""

    entry_id: str | None
    abandoned_entries: int


# ---- RuntimeEvent: recorded --------------------------------------------------------------------------------


class RuntimeEvent(_Fact):
    """A recorded event. Fields of the seed first, exact; what we add follows and is optional."""

    kind: str

    def scope(self) -> str:
        """Return the value of the column `scope`: the agent, or the runtime instance."""
        return self.agent_id


class _InTurn(RuntimeEvent):
    run_id: str | None = None


class _OfCall(_InTurn):
    tool_name: str
    tool_call_id: str


class AuthorizationDenied(_InTurn):
    kind: Literal["authorization_denied"] = "authorization_denied"
    action: str
    detail: str


class ToolAuthorizationStarted(_OfCall):
    kind: Literal["tool_authorization_started"] = "tool_authorization_started"
    preview: ToolAuthorizationPreview


class ToolAuthorizationFinished(_OfCall):
    """The one decision about a call: by whom, by which rule, after `wait_ms`, or that its arguments are `invalid`."""

    kind: Literal["tool_authorization_finished"] = "tool_authorization_finished"
    outcome: ToolAuthorizationOutcome
    reason: str | None = None
    decided_by: str | None = None
    request_id: str | None = None
    wait_ms: int | None = None
    subject: str | None = None
    subjects: tuple[str, ...] | None = None
    """The parts of the subject, when there are several."""
    rule_id: str | None = None
    pattern: str | None = Field(default=None, exclude=True)
    invalid: bool | None = None


class ToolAuthorizationBlocked(_OfCall):
    kind: Literal["tool_authorization_blocked"] = "tool_authorization_blocked"
    outcome: ToolAuthorizationOutcome
    reason: str | None = None


class RecoveryPrepared(RuntimeEvent):
    kind: Literal["recovery_prepared"] = "recovery_prepared"
    agent_id: str = Field(default="", exclude=True)
    runtime_instance_id: str

    def scope(self) -> str:
        return self.runtime_instance_id


class ModelRequestStarted(_InTurn):
    kind: Literal["model_request_started"] = "model_request_started"
    model: str
    attempt: int
    request_id: str | None = None
    provider: str | None = None


class ModelRequestFinished(_InTurn):
    kind: Literal["model_request_finished"] = "model_request_finished"
    model: str
    attempt: int
    success: bool
    error: str | None = None
    request_id: str | None = None
    provider: str | None = None


class ModelResponseFinished(_InTurn):
    kind: Literal["model_response_finished"] = "model_response_finished"
    model: str
    attempt: int
    success: bool
    error: str | None = None
    stop_reason: str | None = None
    usage: TokenUsage | None = None
    request_id: str | None = None
    provider: str | None = None


class ToolExecutionStarted(_OfCall):
    kind: Literal["tool_execution_started"] = "tool_execution_started"
    input: dict[str, Any] | None = None


class ToolExecutionFinished(_OfCall):
    kind: Literal["tool_execution_finished"] = "tool_execution_finished"
    is_error: bool
    error: str | None = None
    output_preview: str
    duration_ms: int | None = None
    model_output: str | None = None
    """What the model read instead of the output, if a post-execution hook replaced it."""


class PolicyDenied(_InTurn):
    kind: Literal["policy_denied"] = "policy_denied"
    tool_name: str
    reason: str
    tool_call_id: str | None = None


class BackgroundTaskStarted(_InTurn):
    kind: Literal["background_task_started"] = "background_task_started"
    task_id: str
    command: str
    cwd: str


class BackgroundTaskFinished(_InTurn):
    kind: Literal["background_task_finished"] = "background_task_finished"
    task_id: str
    status: str


class MemorySearchStarted(_InTurn):
    kind: Literal["memory_search_started"] = "memory_search_started"
    limit: int
    query_preview: str


class MemorySearchFinished(_InTurn):
    kind: Literal["memory_search_finished"] = "memory_search_finished"
    success: bool
    result_count: int
    error: str | None = None


class MemoryIngestStarted(_InTurn):
    kind: Literal["memory_ingest_started"] = "memory_ingest_started"
    source_revision: int


class MemoryIngestFinished(_InTurn):
    kind: Literal["memory_ingest_finished"] = "memory_ingest_finished"
    source_revision: int
    success: bool
    stored_records: int
    error: str | None = None


class MemoryCompactionProposed(_InTurn):
    kind: Literal["memory_compaction_proposed"] = "memory_compaction_proposed"
    base_revision: int
    transcript_path: str


class MemoryCompactionApplied(_InTurn):
    kind: Literal["memory_compaction_applied"] = "memory_compaction_applied"
    base_revision: int
    resulting_history_len: int


class MemoryCompactionSkipped(_InTurn):
    kind: Literal["memory_compaction_skipped"] = "memory_compaction_skipped"
    base_revision: int


class RunAborted(_InTurn):
    kind: Literal["run_aborted"] = "run_aborted"
    reason: str


class ToolExecutionBlocked(_OfCall):
    kind: Literal["tool_execution_blocked"] = "tool_execution_blocked"
    reason: str


SEED_KINDS: tuple[type[RuntimeEvent], ...] = (
    AuthorizationDenied,
    ToolAuthorizationStarted,
    ToolAuthorizationFinished,
    ToolAuthorizationBlocked,
    RecoveryPrepared,
    ModelRequestStarted,
    ModelRequestFinished,
    ModelResponseFinished,
    ToolExecutionStarted,
    ToolExecutionFinished,
    PolicyDenied,
    BackgroundTaskStarted,
    BackgroundTaskFinished,
    MemorySearchStarted,
    MemorySearchFinished,
    MemoryIngestStarted,
    MemoryIngestFinished,
    MemoryCompactionProposed,
    MemoryCompactionApplied,
    MemoryCompactionSkipped,
    RunAborted,
    ToolExecutionBlocked,
)
"""The 22 kinds of the original, in its order."""


class TurnStarted(_InTurn):
    kind: Literal["turn_started"] = "turn_started"
    model: str
    prompt: str
    session_id: str | None = None
    cell_id: str | None = None
    execution_count: int | None = None
    notebook: str | None = None
    project: str | None = None
    resumes: str | None = None
    """The `run_id` of the turn it continues."""


class TurnFinished(_InTurn):
    """A turn has ended: finished, stopped or failed. The last three fields are not recorded."""

    kind: Literal["turn_finished"] = "turn_finished"
    stop_reason: str
    """`end`, `max_tokens`, `refusal`, `content_filter`, `budget`, `stopped`, or `cancelled`, `interrupted`, `error`."""
    success: bool
    error: str | None = None
    duration_ms: int | None
    session_id: str | None = None
    cell_id: str | None = None
    execution_count: int | None = None
    text: str = ""
    """The answer."""
    usage: TokenUsage = Field(default=TokenUsage.model_construct(), exclude=True)
    error_type: str | None = Field(default=None, exclude=True)
    """The class of the exception that ended it."""
    recoverable: bool = Field(default=False, exclude=True)
    """Whether the same turn may succeed when it is tried again."""


class QuestionAsked(_OfCall):
    """A person is asked whether a call may run. The question itself is among the session's open questions."""

    kind: Literal["permission_requested"] = "permission_requested"
    request_id: str
    description: str
    subject: str
    deadline: float
    session_id: str | None = None
    structured_input: Any = Field(default=None, exclude=True)


class QuestionAnswered(_OfCall):
    """A question is closed, by `user`, `timeout`, `cancelled` or `headless`, `waited_ms` after it was asked.

    `rule_id` and `pattern` are those of a rule that was made with the answer.
    """

    kind: Literal["permission_resolved"] = "permission_resolved"
    request_id: str
    outcome: Literal["allowed", "denied"]
    decided_by: str
    rule_scope: PermissionScope | None = None
    reason: str | None = None
    waited_ms: int
    session_id: str | None = None
    rule_id: str | None = None
    pattern: str | None = None


class RuleChanged(RuntimeEvent):
    """A rule was made, made again in place of the rule `replaces`, or revoked, in a session.

    `scope_key` is the session's or project's id; `request_id` is the question, if a rule is made with its answer.
    """

    kind: Literal["rule_changed"] = "rule_changed"
    agent_id: str = Field(default="", exclude=True)
    action: Literal["made", "changed", "revoked"]
    rule_id: str
    tool_name: str
    pattern: str
    allow: bool
    rule_scope: PermissionScope
    scope_key: str = ""
    reason: str | None = None
    decided_by: str = "user"
    replaces: str | None = None
    request_id: str | None = None
    session_id: str | None = None

    def scope(self) -> str:
        return "rules"


class SessionStarted(RuntimeEvent):
    kind: Literal["session_started"] = "session_started"
    session_id: str
    title: str
    model: str
    project: str | None = None
    notebook: str | None = None


class JournalGap(RuntimeEvent):
    """Written before the first event after failed writes: `lost` events are not in the record."""

    kind: Literal["journal_gap"] = "journal_gap"
    agent_id: str = Field(default="", exclude=True)
    lost: int
    reason: str

    def scope(self) -> str:
        return "journal"


ADDED_KINDS: tuple[type[RuntimeEvent], ...] = (
    TurnStarted,
    TurnFinished,
    QuestionAsked,
    QuestionAnswered,
    SessionStarted,
    RuleChanged,
    JournalGap,
)

_BY_KIND: dict[str, type[RuntimeEvent]] = {cls.model_fields["kind"].default: cls for cls in (*SEED_KINDS, *ADDED_KINDS)}


def runtime_event_from_json(payload: dict[str, Any]) -> RuntimeEvent:
    """Return the event of a recorded payload. Raises `KeyError` for a kind this version does not know."""
    return _BY_KIND[payload["kind"]].model_validate(payload)
