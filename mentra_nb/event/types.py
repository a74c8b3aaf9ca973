"""What happens, said once: `AgentEvent` is emitted; `RuntimeEvent` (audit) is what is recorded of it.

A `RuntimeEvent` is an `AgentEvent` that is recorded; no other is. What each looks like on a screen is the table in
`projections.py`.
"""

from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mentra_nb.content import Data, Message, TokenUsage
from mentra_nb.event.facts import Fact, InTurn
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
    parent_id: str | None = None
    """The agent that gave the task, for the turn of a subagent."""
    parent_run_id: str | None = None
    """The turn of that agent."""
    parent_call_id: str | None = None
    """The call by which it gave the task."""


class AssistantMessageCommitted(Fact):
    message: Message


class UsageReport(Fact):
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0


# ---- RuntimeEvent: recorded --------------------------------------------------------------------------------


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
    parent_id: str | None = None
    """As `TurnOrigin.parent_id`, and so on."""
    parent_run_id: str | None = None
    parent_call_id: str | None = None


class TurnFinished(InTurn):
    """A turn has ended: finished, stopped or failed. The last three fields are not recorded."""

    kind: Literal["turn_finished"] = "turn_finished"
    stop_reason: str
    """`end`, `max_tokens`, `refusal`, `content_filter`, `budget`, `plan_denied`, `stopped`, or how it was ended early:
    `cancelled`, `interrupted`, `error`."""
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


# ---- all kinds ---------------------------------------------------------------------------------------------------


def _seed_kinds() -> tuple[type[RuntimeEvent], ...]:
    from mentra_nb.event import calls, rare

    return (
        rare.AuthorizationDenied,
        calls.ToolAuthorizationStarted,
        calls.ToolAuthorizationFinished,
        rare.ToolAuthorizationBlocked,
        RecoveryPrepared,
        ModelRequestStarted,
        ModelRequestFinished,
        ModelResponseFinished,
        calls.ToolExecutionStarted,
        calls.ToolExecutionFinished,
        rare.PolicyDenied,
        calls.BackgroundTaskStarted,
        calls.BackgroundTaskFinished,
        rare.MemorySearchStarted,
        rare.MemorySearchFinished,
        rare.MemoryIngestStarted,
        rare.MemoryIngestFinished,
        rare.MemoryCompactionProposed,
        rare.MemoryCompactionApplied,
        rare.MemoryCompactionSkipped,
        calls.RunAborted,
        rare.ToolExecutionBlocked,
    )


def _added_kinds() -> tuple[type[RuntimeEvent], ...]:
    from mentra_nb.event import calls, rare
    from mentra_nb.event.effects import EffectMade
    from mentra_nb.event.feedback import FeedbackGiven

    return (
        TurnStarted,
        TurnFinished,
        calls.QuestionAsked,
        calls.QuestionAnswered,
        calls.SessionStarted,
        rare.RuleChanged,
        EffectMade,
        rare.QuestionAdvised,
        FeedbackGiven,
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
    from mentra_nb.event.calls import BackgroundTaskFinished as BackgroundTaskFinished
    from mentra_nb.event.calls import BackgroundTaskStarted as BackgroundTaskStarted
    from mentra_nb.event.calls import Branched as Branched
    from mentra_nb.event.calls import QuestionAnswered as QuestionAnswered
    from mentra_nb.event.calls import QuestionAsked as QuestionAsked
    from mentra_nb.event.calls import RetryAttempt as RetryAttempt
    from mentra_nb.event.calls import RunAborted as RunAborted
    from mentra_nb.event.calls import SessionStarted as SessionStarted
    from mentra_nb.event.calls import SubagentActed as SubagentActed
    from mentra_nb.event.calls import SubagentFinished as SubagentFinished
    from mentra_nb.event.calls import SubagentSpawned as SubagentSpawned
    from mentra_nb.event.calls import ToolAuthorizationFinished as ToolAuthorizationFinished
    from mentra_nb.event.calls import ToolAuthorizationStarted as ToolAuthorizationStarted
    from mentra_nb.event.calls import ToolCallStarted as ToolCallStarted
    from mentra_nb.event.calls import ToolExecutionFinished as ToolExecutionFinished
    from mentra_nb.event.calls import ToolExecutionProgress as ToolExecutionProgress
    from mentra_nb.event.calls import ToolExecutionStarted as ToolExecutionStarted
    from mentra_nb.event.calls import ToolUseReady as ToolUseReady
    from mentra_nb.event.rare import AuthorizationDenied as AuthorizationDenied
    from mentra_nb.event.rare import JournalGap as JournalGap
    from mentra_nb.event.rare import MemoryCompactionApplied as MemoryCompactionApplied
    from mentra_nb.event.rare import MemoryCompactionProposed as MemoryCompactionProposed
    from mentra_nb.event.rare import MemoryCompactionSkipped as MemoryCompactionSkipped
    from mentra_nb.event.rare import MemoryIngestFinished as MemoryIngestFinished
    from mentra_nb.event.rare import MemoryIngestStarted as MemoryIngestStarted
    from mentra_nb.event.rare import MemoryRecalled as MemoryRecalled
    from mentra_nb.event.rare import MemorySearchFinished as MemorySearchFinished
    from mentra_nb.event.rare import MemorySearchStarted as MemorySearchStarted
    from mentra_nb.event.rare import PolicyDenied as PolicyDenied
    from mentra_nb.event.rare import QuestionAdvised as QuestionAdvised
    from mentra_nb.event.rare import RuleChanged as RuleChanged
    from mentra_nb.event.rare import TasksUpdated as TasksUpdated
    from mentra_nb.event.rare import ToolAuthorizationBlocked as ToolAuthorizationBlocked
    from mentra_nb.event.rare import ToolExecutionBlocked as ToolExecutionBlocked
else:

    def __getattr__(name):
        """Make the kinds of calls, and the rare ones, when the first of them is used."""
        if name.startswith("_"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from mentra_nb.event import calls

        if name in ("SEED_KINDS", "ADDED_KINDS"):
            value = _seed_kinds() if name == "SEED_KINDS" else _added_kinds()
        elif name in vars(calls):
            value = getattr(calls, name)
        else:
            from mentra_nb.event import rare

            value = getattr(rare, name)
        globals()[name] = value
        return value

    def __dir__():
        from mentra_nb.event import calls, rare

        return sorted({*globals(), *vars(calls), *vars(rare), "SEED_KINDS", "ADDED_KINDS"})
