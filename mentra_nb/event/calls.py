"""The events of calls, questions, subagents, background tasks and sessions: a turn that only answers has none of them.

They are apart so that a first turn does not have to make their classes. `types.py` offers them with the others.
"""

from typing import Any, Literal

from pydantic import Field

from mentra_nb.authorization import PermissionScope, ToolAuthorizationOutcome, ToolAuthorizationPreview
from mentra_nb.content import TokenUsage, ToolUse
from mentra_nb.event.facts import Fact, InTurn, OfCall, RuntimeEvent


class RetryAttempt(Fact):
    error_message: str
    attempt: int
    max_attempts: int
    next_delay_ms: int


class ToolUseReady(Fact):
    index: int
    call: ToolUse


class ToolCallStarted(Fact):
    """The scheduler took up a call; it is not authorized yet."""

    call: ToolUse


class ToolExecutionProgress(Fact):
    id: str
    name: str
    progress: str


class SubagentSpawned(Fact):
    """`agent_id` gave a task to a subagent."""

    subagent_id: str
    name: str
    model: str
    prompt: str = ""
    """The beginning of the task."""


class SubagentActed(Fact):
    """A subagent took up a call of a tool."""

    subagent_id: str
    name: str
    tool_name: str


class SubagentFinished(Fact):
    subagent_id: str
    name: str
    error: str | None = None
    """Why it failed, when it did."""
    provider: str = ""
    model: str = ""
    usage: TokenUsage = Field(default_factory=TokenUsage)
    """What all its answers used."""


class Branched(Fact):
    """The conversation goes on from `entry_id`; `abandoned_entries` are off its path now."""

    entry_id: str | None
    abandoned_entries: int


class ToolAuthorizationStarted(OfCall):
    kind: Literal["tool_authorization_started"] = "tool_authorization_started"
    preview: ToolAuthorizationPreview


class ToolAuthorizationFinished(OfCall):
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


class ToolExecutionStarted(OfCall):
    kind: Literal["tool_execution_started"] = "tool_execution_started"
    input: dict[str, Any] | None = None


class ToolExecutionFinished(OfCall):
    kind: Literal["tool_execution_finished"] = "tool_execution_finished"
    is_error: bool
    error: str | None = None
    output_preview: str
    duration_ms: int | None = None
    model_output: str | None = None
    """What the model read instead of the output, if a post-execution hook replaced it."""
    details: Any = None
    """What the tool returned besides, which the model does not read."""


class BackgroundTaskStarted(InTurn):
    kind: Literal["background_task_started"] = "background_task_started"
    task_id: str
    command: str
    cwd: str


class BackgroundTaskFinished(InTurn):
    kind: Literal["background_task_finished"] = "background_task_finished"
    task_id: str
    status: str


class RunAborted(InTurn):
    kind: Literal["run_aborted"] = "run_aborted"
    reason: str


class QuestionAsked(OfCall):
    """A person is asked whether a call may run. The question itself is among the session's open questions."""

    kind: Literal["permission_requested"] = "permission_requested"
    request_id: str
    description: str
    subject: str
    deadline: float
    session_id: str | None = None
    structured_input: Any = Field(default=None, exclude=True)


class QuestionAnswered(OfCall):
    """A question is closed, by `user`, `timeout`, `cancelled` or `headless`, `waited_ms` after it was asked.

    `rule_id` and `pattern` are those of a rule that was made with the answer; `input` are the arguments as the person
    changed them.
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
    input: dict[str, Any] | None = None


class SessionStarted(RuntimeEvent):
    kind: Literal["session_started"] = "session_started"
    session_id: str
    title: str
    model: str
    project: str | None = None
    notebook: str | None = None
