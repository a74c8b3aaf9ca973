"""The recorded events that few turns have: refusals, rules, lost events, and kinds that only the original emits.

They are apart so that a first turn does not have to make their classes. `types.py` offers them with the others.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field

from mentra_nb.authorization import PermissionScope, ToolAuthorizationOutcome
from mentra_nb.event.facts import Fact, InTurn, OfCall, RuntimeEvent


class AuthorizationDenied(InTurn):
    kind: Literal["authorization_denied"] = "authorization_denied"
    action: str
    detail: str


class ToolAuthorizationBlocked(OfCall):
    kind: Literal["tool_authorization_blocked"] = "tool_authorization_blocked"
    outcome: ToolAuthorizationOutcome
    reason: str | None = None


class PolicyDenied(InTurn):
    kind: Literal["policy_denied"] = "policy_denied"
    tool_name: str
    reason: str
    tool_call_id: str | None = None


class MemorySearchStarted(InTurn):
    kind: Literal["memory_search_started"] = "memory_search_started"
    limit: int
    query_preview: str


class MemorySearchFinished(InTurn):
    kind: Literal["memory_search_finished"] = "memory_search_finished"
    success: bool
    result_count: int
    error: str | None = None
    records: tuple[str, ...] | None = None
    """The ids of what was found, best first."""


class MemoryIngestStarted(InTurn):
    kind: Literal["memory_ingest_started"] = "memory_ingest_started"
    source_revision: int


class MemoryIngestFinished(InTurn):
    kind: Literal["memory_ingest_finished"] = "memory_ingest_finished"
    source_revision: int
    success: bool
    stored_records: int
    error: str | None = None


class MemoryCompactionProposed(InTurn):
    """A summary is about to be asked for. `base_revision` is the number of entries on the path.

    `transcript_path` is where all of them stay: `store:`, the agent's id and the last entry's.
    """

    kind: Literal["memory_compaction_proposed"] = "memory_compaction_proposed"
    base_revision: int
    transcript_path: str
    trigger: Literal["auto", "manual", "overflow"] | None = None
    tokens: int | None = None
    window: int | None = None


class MemoryCompactionApplied(InTurn):
    """From now on less is sent of a conversation: a summary in place of entries, or old results in part.

    `resulting_history_len` is the number of messages that are sent; the tokens are estimates.
    """

    kind: Literal["memory_compaction_applied"] = "memory_compaction_applied"
    base_revision: int
    resulting_history_len: int
    trigger: Literal["auto", "manual", "overflow"] | None = None
    mode: Literal["summary", "without_model", "shortened"] | None = None
    """`without_model`: no model has summarised, as its request failed."""
    replaced_items: int | None = None
    preserved_items: int | None = None
    tokens_before: int | None = None
    tokens_after: int | None = None
    extracted_facts_count: int | None = None
    summary_preview: str | None = None


class MemoryCompactionSkipped(InTurn):
    """No summary was made: there was nothing to stand for, or its request failed and the conversation still fits."""

    kind: Literal["memory_compaction_skipped"] = "memory_compaction_skipped"
    base_revision: int
    trigger: Literal["auto", "manual", "overflow"] | None = None
    reason: str | None = None


class ToolExecutionBlocked(OfCall):
    kind: Literal["tool_execution_blocked"] = "tool_execution_blocked"
    reason: str


class RuleChanged(RuntimeEvent):
    """A rule was made, made again in place of the rule `replaces`, or revoked, in a session.

    `scope_key` is the session's or project's id; `request_id` is the question, if a rule is made with its answer.
    `folders` are those in which a command's effect is kept unasked.
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
    folders: tuple[str, ...] | None = None
    reason: str | None = None
    decided_by: str = "user"
    replaces: str | None = None
    request_id: str | None = None
    session_id: str | None = None

    def scope(self) -> str:
        return "rules"


class QuestionAdvised(OfCall):
    """A model has advised on an open question, `duration_ms` after it was asked. It decides nothing.

    `risk` is `unknown` where the reviewer failed, was too slow or stated none. `reason` is text of a model.
    """

    kind: Literal["permission_advised"] = "permission_advised"
    request_id: str
    risk: Literal["low", "medium", "high", "unknown"]
    reason: str
    provider: str
    model: str
    duration_ms: int
    session_id: str | None = None


class TasksUpdated(Fact):
    """The task board of an agent has changed: all its tasks, by id, with the names that a model reads."""

    kind: ClassVar[str] = "tasks_updated"
    tasks: tuple[dict[str, Any], ...]


class TeammateSpawned(Fact):
    """A teammate has gone to work: the summary of it as a member of the team, with the names that a model reads."""

    kind: ClassVar[str] = "teammate_spawned"
    teammate: dict[str, Any]


class TeammateUpdated(Fact):
    """The status of a teammate has changed."""

    kind: ClassVar[str] = "teammate_updated"
    teammate: dict[str, Any]


class TeamInboxUpdated(Fact):
    """The number of messages that wait for an agent has changed."""

    kind: ClassVar[str] = "team_inbox_updated"
    unread: int


class TeamProtocolRequested(Fact):
    """A member of a team waits for the answer of another: the request, with the names that a model reads."""

    kind: ClassVar[str] = "team_protocol_requested"
    request: dict[str, Any]


class TeamProtocolResolved(Fact):
    """A request was answered."""

    kind: ClassVar[str] = "team_protocol_resolved"
    request: dict[str, Any]


class MemoryRecalled(Fact):
    """A turn is given memories: the lines that quote them, as the model reads them."""

    kind: ClassVar[str] = "memory_recalled"
    lines: tuple[str, ...]


class JournalGap(RuntimeEvent):
    """Written before the first event after failed writes: `lost` events are not in the record."""

    kind: Literal["journal_gap"] = "journal_gap"
    agent_id: str = Field(default="", exclude=True)
    lost: int
    reason: str

    def scope(self) -> str:
        return "journal"
