"""What happens, said once: `AgentEvent` is emitted; `RuntimeEvent` (audit) is what is recorded of it.

A `RuntimeEvent` is an `AgentEvent` that is recorded; no other is. What each looks like on a screen is the table in
`projections.py`.
"""

from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mentra_nb.authorization import PermissionScope, ToolAuthorizationOutcome, ToolAuthorizationPreview
from mentra_nb.content import Data, Message, TokenUsage, ToolUse
from mentra_nb.event.facts import Fact, InTurn, OfCall
from mentra_nb.event.facts import RuntimeEvent as RuntimeEvent
from mentra_nb.event.pieces import AgentEvent as AgentEvent
from mentra_nb.event.pieces import ReasoningDelta as ReasoningDelta
from mentra_nb.event.pieces import TextDelta as TextDelta
from mentra_nb.event.pieces import ToolUseUpdated as ToolUseUpdated

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
    woken_by: str | None = None
    """The background tasks whose ends began the turn, without a prompt of a person; ids with blanks between."""


class RetryAttempt(Fact):
    error_message: str
    attempt: int
    max_attempts: int
    next_delay_ms: int


class ToolUseReady(Fact):
    index: int
    call: ToolUse


class AssistantMessageCommitted(Fact):
    message: Message


class ToolCallStarted(Fact):
    """The scheduler took up a call; it is not authorized yet."""

    call: ToolUse


class ToolExecutionProgress(Fact):
    id: str
    name: str
    progress: str


class UsageReport(Fact):
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0


class SubagentSpawned(Fact):
    """`agent_id` gave a task to a subagent."""

    subagent_id: str
    name: str
    model: str


class SubagentFinished(Fact):
    subagent_id: str
    name: str
    error: str | None = None
    """Why it failed, when it did."""


class Branched(Fact):
    """The conversation goes on from `entry_id`; `abandoned_entries` are off its path now."""

    entry_id: str | None
    abandoned_entries: int


# ---- RuntimeEvent: recorded --------------------------------------------------------------------------------


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


class RecoveryPrepared(RuntimeEvent):
    kind: Literal["recovery_prepared"] = "recovery_prepared"
    agent_id: str = Field(default="", exclude=True)
    runtime_instance_id: str

    def scope(self) -> str:
        return self.runtime_instance_id


class ModelRequestStarted(InTurn):
    kind: Literal["model_request_started"] = "model_request_started"
    model: str
    attempt: int
    request_id: str | None = None
    provider: str | None = None


class ModelRequestFinished(InTurn):
    kind: Literal["model_request_finished"] = "model_request_finished"
    model: str
    attempt: int
    success: bool
    error: str | None = None
    request_id: str | None = None
    provider: str | None = None


class ModelResponseFinished(InTurn):
    kind: Literal["model_response_finished"] = "model_response_finished"
    model: str
    attempt: int
    success: bool
    error: str | None = None
    stop_reason: str | None = None
    usage: TokenUsage | None = None
    request_id: str | None = None
    provider: str | None = None


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


class TurnStarted(InTurn):
    kind: Literal["turn_started"] = "turn_started"
    model: str
    prompt: str
    woken_by: str | None = None
    """As `TurnOrigin.woken_by`."""
    session_id: str | None = None
    cell_id: str | None = None
    execution_count: int | None = None
    notebook: str | None = None
    project: str | None = None
    resumes: str | None = None
    """The `run_id` of the turn it continues."""


class TurnFinished(InTurn):
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


# ---- all kinds ---------------------------------------------------------------------------------------------------


def _seed_kinds() -> tuple[type[RuntimeEvent], ...]:
    from mentra_nb.event import rare

    return (
        rare.AuthorizationDenied,
        ToolAuthorizationStarted,
        ToolAuthorizationFinished,
        rare.ToolAuthorizationBlocked,
        RecoveryPrepared,
        ModelRequestStarted,
        ModelRequestFinished,
        ModelResponseFinished,
        ToolExecutionStarted,
        ToolExecutionFinished,
        rare.PolicyDenied,
        BackgroundTaskStarted,
        BackgroundTaskFinished,
        rare.MemorySearchStarted,
        rare.MemorySearchFinished,
        rare.MemoryIngestStarted,
        rare.MemoryIngestFinished,
        rare.MemoryCompactionProposed,
        rare.MemoryCompactionApplied,
        rare.MemoryCompactionSkipped,
        RunAborted,
        rare.ToolExecutionBlocked,
    )


def _added_kinds() -> tuple[type[RuntimeEvent], ...]:
    from mentra_nb.event import rare
    from mentra_nb.event.effects import EffectMade

    return (
        TurnStarted,
        TurnFinished,
        QuestionAsked,
        QuestionAnswered,
        SessionStarted,
        rare.RuleChanged,
        EffectMade,
        rare.QuestionAdvised,
        rare.JournalGap,
    )


@cache
def _by_kind() -> dict[str, type[RuntimeEvent]]:
    return {cls.model_fields["kind"].default: cls for cls in (*_seed_kinds(), *_added_kinds())}


def runtime_event_from_json(payload: dict[str, Any]) -> RuntimeEvent:
    """Return the event of a recorded payload. Raises `KeyError` for a kind this version does not know."""
    return _by_kind()[payload["kind"]].model_validate(payload)


if TYPE_CHECKING:
    SEED_KINDS: tuple[type[RuntimeEvent], ...]
    """The 22 kinds of the original, in its order."""
    ADDED_KINDS: tuple[type[RuntimeEvent], ...]
    from mentra_nb.event.rare import AuthorizationDenied as AuthorizationDenied
    from mentra_nb.event.rare import JournalGap as JournalGap
    from mentra_nb.event.rare import MemoryCompactionApplied as MemoryCompactionApplied
    from mentra_nb.event.rare import MemoryCompactionProposed as MemoryCompactionProposed
    from mentra_nb.event.rare import MemoryCompactionSkipped as MemoryCompactionSkipped
    from mentra_nb.event.rare import MemoryIngestFinished as MemoryIngestFinished
    from mentra_nb.event.rare import MemoryIngestStarted as MemoryIngestStarted
    from mentra_nb.event.rare import MemorySearchFinished as MemorySearchFinished
    from mentra_nb.event.rare import MemorySearchStarted as MemorySearchStarted
    from mentra_nb.event.rare import PolicyDenied as PolicyDenied
    from mentra_nb.event.rare import QuestionAdvised as QuestionAdvised
    from mentra_nb.event.rare import RuleChanged as RuleChanged
    from mentra_nb.event.rare import ToolAuthorizationBlocked as ToolAuthorizationBlocked
    from mentra_nb.event.rare import ToolExecutionBlocked as ToolExecutionBlocked
else:

    def __getattr__(name):
        """Make the rare kinds when the first of them is used."""
        if name.startswith("_"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from mentra_nb.event import rare

        kinds = {"SEED_KINDS": _seed_kinds, "ADDED_KINDS": _added_kinds}
        value = globals()[name] = kinds[name]() if name in kinds else getattr(rare, name)
        return value

    def __dir__():
        from mentra_nb.event import rare

        return sorted({*globals(), *vars(rare), "SEED_KINDS", "ADDED_KINDS"})
