"""What is kept and how it is asked for: frozen records and the `RuntimeStore` protocol.

Rows are appended; a transcript is never rewritten. Every call has committed when it returns. Times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from pydantic import Field

from mentra_nb.authorization import PermissionQuestion, PermissionRule
from mentra_nb.content import Data, Message

RunState = Literal["running", "finished", "failed", "interrupted"]
EntryKind = Literal["user_turn", "assistant_turn", "tool_exchange"]


class AgentRecord(Data):
    id: str
    runtime_identifier: str
    name: str
    model: str
    provider_id: str
    config: dict[str, Any] = Field(default_factory=dict)
    status: str = "Idle"
    leaf: str | None = None
    """The transcript entry the next turn continues from."""
    created_at: float
    updated_at: float


class SessionRecord(Data):
    id: str
    name: str
    agent_id: str
    model: str
    project: str | None = None
    notebook: str | None = None
    created_at: float
    updated_at: float


class Entry(Data):
    """One message in an agent's transcript, which is a tree: each entry names the one before it."""

    id: str
    agent_id: str
    parent_id: str | None
    run_id: str | None
    kind: EntryKind
    message: Message
    created_at: float


class RunRecord(Data):
    """A turn. `base` is the leaf it began at; `leaf` is set when it moved it; `partial` is text not yet committed."""

    id: str
    agent_id: str
    state: RunState = "running"
    error: str | None = None
    base: str | None = None
    leaf: str | None = None
    partial: str = ""
    cell_id: str | None = None
    started_at: float
    finished_at: float | None = None


class ToolCallRecord(Data):
    """Written before the tool runs. `finished_at` is `None` until its result is known: then it may have run or not."""

    run_id: str
    call_id: str
    agent_id: str
    tool: str
    arguments: dict[str, Any]
    arguments_hash: str
    effect: Literal["none", "idempotent", "once"]
    started_at: float
    finished_at: float | None = None
    is_error: bool | None = None
    result: Any = None


class RuntimeStore(Protocol):
    """Any store with these operations will do. All raise `StoreError`."""

    async def create_agent(self, agent: AgentRecord) -> None: ...
    async def load_agent(self, agent_id: str) -> AgentRecord | None: ...
    async def list_agents(self, runtime_identifier: str | None = None) -> list[AgentRecord]:
        """Oldest first; all of them without an identifier."""
        ...

    async def set_status(self, agent_id: str, status: str) -> None: ...

    async def save_session(self, session: SessionRecord) -> None: ...
    async def load_session(self, name: str, project: str | None = None) -> SessionRecord | None:
        """The newest session of that name or id (in that project, when given)."""
        ...

    async def list_sessions(self) -> list[SessionRecord]: ...

    async def append_entries(self, entries: Sequence[Entry]) -> None: ...
    async def load_path(self, agent_id: str, leaf: str | None) -> list[Entry]:
        """The entries from the root to `leaf`."""
        ...

    async def start_run(self, run: RunRecord) -> None: ...
    async def save_partial(self, run_id: str, text: str) -> None: ...
    async def finish_run(self, run_id: str, state: RunState, *, leaf: str | None, error: str | None = None) -> None:
        """Close a run; with a `leaf`, the agent's next turn continues there. One transaction."""
        ...

    async def list_runs(self, agent_id: str) -> list[RunRecord]: ...

    async def begin_tool_call(self, call: ToolCallRecord) -> None: ...
    async def finish_tool_call(self, run_id: str, call_id: str, result: Any, *, is_error: bool) -> None: ...
    async def list_tool_calls(self, run_id: str) -> list[ToolCallRecord]: ...

    async def save_rule(self, rule: PermissionRule) -> PermissionRule:
        """Remember a rule. The last decision for the same scope, key, tool and pattern replaces the earlier one."""
        ...

    async def list_rules(self, session_id: str | None, project: str | None = None) -> list[PermissionRule]:
        """The session's own rules, the project's, and the global ones."""
        ...

    async def revoke_rule(self, rule_id: str) -> bool: ...
    async def count_rule_use(self, rule_id: str) -> None: ...

    async def open_question(self, question: PermissionQuestion) -> None: ...
    async def close_question(self, request_id: str, outcome: str, decided_by: str) -> None: ...
    async def open_questions(self, session_id: str | None = None) -> list[PermissionQuestion]: ...

    def close(self) -> None: ...
