"""May this call run? The questions and answers of authorization, as frozen data, and the authorizer's protocol.

Matching of rules is `control/rules.py`; asking a person is `session/permissions.py`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal, Protocol

from pydantic import Field

from mentra_nb.content import Data


class ToolCapability(StrEnum):
    READ_ONLY = "ReadOnly"
    FILESYSTEM_READ = "FilesystemRead"
    FILESYSTEM_WRITE = "FilesystemWrite"
    PROCESS_EXEC = "ProcessExec"
    BACKGROUND_EXEC = "BackgroundExec"
    TASK_MUTATION = "TaskMutation"
    TEAM_COORDINATION = "TeamCoordination"
    DELEGATION = "Delegation"
    CONTEXT_COMPACTION = "ContextCompaction"
    SKILL_LOAD = "SkillLoad"


class CustomCapability(Data):
    """A capability of an application's own: `{"Custom": "name"}`."""

    Custom: str


class ToolSideEffectLevel(StrEnum):
    NONE = "None"
    LOCAL_STATE = "LocalState"
    PROCESS = "Process"
    EXTERNAL = "External"


class ToolDurability(StrEnum):
    EPHEMERAL = "Ephemeral"
    PERSISTENT = "Persistent"
    REPLAY_SAFE = "ReplaySafe"


class ToolExecutionCategory(StrEnum):
    READ_ONLY_PARALLEL = "ReadOnlyParallel"
    EXCLUSIVE_LOCAL_MUTATION = "ExclusiveLocalMutation"
    EXCLUSIVE_PERSISTENT_MUTATION = "ExclusivePersistentMutation"
    BACKGROUND_JOB = "BackgroundJob"
    DELEGATION = "Delegation"


class ToolApprovalCategory(StrEnum):
    DEFAULT = "Default"
    READ_ONLY = "ReadOnly"
    FILESYSTEM = "Filesystem"
    PROCESS = "Process"
    BACKGROUND = "Background"
    DELEGATION = "Delegation"


class ToolAuthorizationPreview(Data):
    """What a call would do, before it does it."""

    working_directory: str
    capabilities: tuple[ToolCapability | CustomCapability, ...] = ()
    side_effect_level: ToolSideEffectLevel = ToolSideEffectLevel.NONE
    durability: ToolDurability = ToolDurability.EPHEMERAL
    execution_category: ToolExecutionCategory = ToolExecutionCategory.EXCLUSIVE_LOCAL_MUTATION
    approval_category: ToolApprovalCategory = ToolApprovalCategory.DEFAULT
    raw_input: Any = None
    """The arguments as the model sent them."""
    structured_input: Any = None
    """The arguments in normal form: resolved paths, no file contents."""


class ToolAuthorizationRequest(Data):
    agent_id: str
    agent_name: str
    model: str
    history_len: int
    tool_call_id: str
    tool_name: str
    preview: ToolAuthorizationPreview
    run_id: str | None = None
    subject: str = ""
    """What a rule's pattern is matched against: the command, the path, else the arguments as compact JSON."""
    shell_subject: bool = False
    """Whether `subject` is a shell line, matched command by command."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """The effective arguments, in full."""
    asks: bool = True
    """Whether the tool's author wants a person asked."""
    again: bool = False
    """Whether the call was interrupted and may have taken effect: then only a person can allow it."""
    earlier_runs: tuple[str, ...] = ()
    """The runs that had taken up this call before: a person may have answered for them."""


class ToolAuthorizationOutcome(StrEnum):
    ALLOW = "allow"
    PROMPT = "prompt"
    DENY = "deny"


class ToolAuthorizationDecision(Data):
    outcome: ToolAuthorizationOutcome
    reason: str | None = None
    decided_by: str = "authorizer"
    """`user`, `rule:<id>`, `policy`, `setting`, `timeout`, `cancelled`, `runtime`, `headless` or `authorizer`."""
    request_id: str | None = None
    """The question that was asked, when a person was."""

    @classmethod
    def allow(cls, decided_by: str = "authorizer") -> ToolAuthorizationDecision:
        return cls(outcome=ToolAuthorizationOutcome.ALLOW, decided_by=decided_by)

    @classmethod
    def prompt(cls, reason: str | None = None) -> ToolAuthorizationDecision:
        return cls(outcome=ToolAuthorizationOutcome.PROMPT, reason=reason)

    @classmethod
    def deny(cls, reason: str | None = None, decided_by: str = "authorizer") -> ToolAuthorizationDecision:
        return cls(outcome=ToolAuthorizationOutcome.DENY, reason=reason, decided_by=decided_by)


class ToolAuthorizer(Protocol):
    """Decides whether a call may run. Raising is a denial."""

    async def authorize(self, request: ToolAuthorizationRequest) -> ToolAuthorizationDecision: ...

    def timeout(self) -> float | None:
        """Seconds after which no answer is a denial; `None` for no limit."""
        ...


PermissionScope = Literal["session", "project", "global"]


class PermissionQuestion(Data):
    """A question put to a person: may this one call run? Bound to its arguments by `arguments_hash`."""

    request_id: str
    session_id: str
    agent_id: str
    agent_name: str
    run_id: str | None
    tool_call_id: str
    tool_name: str
    description: str
    """Why it is asked, in one line."""
    subject: str
    arguments: dict[str, Any]
    """The effective arguments, in full."""
    preview: ToolAuthorizationPreview
    arguments_hash: str
    asked_at: float
    """Unix seconds."""
    deadline: float
    """Unix seconds; unanswered by then is a denial."""
    capabilities: tuple[str, ...] = ()


class PermissionDecision(Data):
    """A person's answer. `remember` adds a rule for `pattern` (default: exactly this subject) in that scope."""

    allow: bool
    remember: PermissionScope | None = None
    pattern: str | None = None
    reason: str | None = None
    by: str = "user"


class PermissionRule(Data):
    """A remembered answer: what `tool` may do unasked (or never) when its subject fits `pattern`.

    `*` stands for any run of characters, `?` for one, `[*]` and `[?]` for themselves; everything else is literal.
    """

    id: str
    tool: str
    pattern: str
    allow: bool
    scope: PermissionScope = "session"
    scope_key: str = ""
    """The session's or project's id; empty for a global rule."""
    reason: str | None = None
    created_at: float = 0.0
    """Unix seconds."""
    times_used: int = 0
