"""What is kept and how it is asked for: frozen records, and protocols by what they keep, joined as `RuntimeStore`.

Rows are appended; a transcript is never rewritten. Every call has committed when it returns. Times are Unix seconds.
"""

from __future__ import annotations

import functools
import os
import platform
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field

from mentra_nb.authorization import PermissionQuestion, PermissionRule
from mentra_nb.content import Data, Message

AgentKind = Literal["agent", "subagent", "teammate"]
RunState = Literal["running", "finished", "failed", "interrupted"]
EntryKind = Literal[
    "user_turn",
    "assistant_turn",
    "assistant_part",
    "tool_exchange",
    "settlement",
    "canonical_context",
    "memory_recall",
    "delegation_request",
    "delegation_result",
    "compaction_summary",
]
Resolution = Literal["run_again", "done", "skipped"]


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
    kind: AgentKind = "agent"
    parent_id: str | None = None
    """The agent that made it, of a subagent or teammate."""
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
    resumes: str | None = None
    """The run it continues."""
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
    resolution: Resolution | None = None
    """What was decided about a call that was begun and whose result nobody knows."""


class LeaseHolder(Data):
    """Who holds a lease: one runtime in one process. A process of the same `host` can be looked for by its `pid`."""

    runtime_id: str
    host: str
    pid: int
    process_started: float
    """Not before the process started (Unix seconds): a process with this pid that began later is another one."""

    @classmethod
    def here(cls, runtime_id: str) -> LeaseHolder:
        """A holder in this process."""
        return cls(runtime_id=runtime_id, host=_host(), pid=os.getpid(), process_started=time.time())


class Lease(Data):
    key: str
    holder: LeaseHolder
    acquired_at: float
    expires_at: float


class QuestionAnswer(Data):
    """How a question was closed."""

    request_id: str
    outcome: Literal["allowed", "denied"]
    decided_by: str
    reason: str | None = None
    decided_at: float


class AgentStore(Protocol):
    async def create_agent(self, agent: AgentRecord) -> None: ...
    async def load_agent(self, agent_id: str) -> AgentRecord | None: ...
    async def list_agents(
        self, runtime_identifier: str | None = None, *, kinds: Collection[AgentKind] = ("agent", "teammate")
    ) -> list[AgentRecord]:
        """Oldest first; of every runtime without an identifier."""
        ...

    async def set_status(self, agent_id: str, status: str) -> None: ...
    async def update_agent(
        self,
        agent_id: str,
        *,
        model: str | None = None,
        provider_id: str | None = None,
        config: dict[str, Any] | None = None,
        status: str | None = None,
    ) -> None:
        """Change what is given. Raises `StoreError` for an unknown agent."""
        ...


class SessionStore(Protocol):
    async def save_session(self, session: SessionRecord) -> None: ...
    async def load_session(self, name: str, project: str | None = None) -> SessionRecord | None:
        """The newest session of that name or id (in that project, when given)."""
        ...

    async def list_sessions(self) -> list[SessionRecord]:
        """Oldest first."""
        ...


class TranscriptStore(Protocol):
    """A write that names its `holder` (a runtime's id) is refused with `LeaseUnavailable` unless that runtime holds the
    lease `agent:<agent id>`. A lease that has expired counts as held until somebody else takes it.
    """

    async def append_entries(self, entries: Sequence[Entry], *, holder: str | None = None) -> None:
        """All of them, or none. The partial text of their run is dropped: it is in them, or was given up."""
        ...

    async def load_path(self, agent_id: str, leaf: str | None) -> list[Entry]:
        """The entries from the root to `leaf`."""
        ...

    async def path_length(self, agent_id: str, leaf: str | None) -> int: ...
    async def load_entry(self, agent_id: str, entry_id: str) -> Entry | None: ...
    async def children(self, agent_id: str, entry_id: str | None) -> list[Entry]:
        """The entries that follow this one, oldest first; of `None` the roots."""
        ...

    async def set_leaf(self, agent_id: str, leaf: str | None, *, holder: str | None = None) -> None:
        """Continue there next time. Raises `UnknownEntry` when the agent has no such entry."""
        ...


class RunStore(Protocol):
    """`holder` as in `TranscriptStore`."""

    async def start_run(self, run: RunRecord, *, entries: Sequence[Entry] = (), holder: str | None = None) -> None:
        """Open a run, with what it begins with. One transaction."""
        ...

    async def save_partial(self, run_id: str, text: str, *, holder: str | None = None) -> None: ...
    async def finish_run(
        self,
        run_id: str,
        state: RunState,
        *,
        leaf: str | None,
        error: str | None = None,
        entries: Sequence[Entry] = (),
        holder: str | None = None,
    ) -> None:
        """Append `entries` and close a run; with a `leaf`, the agent's next turn continues there. One transaction.

        Raises `StoreError`, changing nothing, when the run is not running.
        """
        ...

    async def list_runs(self, agent_id: str) -> list[RunRecord]:
        """Oldest first."""
        ...

    async def latest_run(self, agent_id: str) -> RunRecord | None: ...
    async def open_runs(self, agent_id: str) -> list[RunRecord]:
        """Those still running, or whose process died; oldest first."""
        ...

    async def run_entries(self, run_id: str) -> list[Entry]:
        """What a run appended, in the order of the path."""
        ...

    async def begin_tool_call(self, call: ToolCallRecord, *, holder: str | None = None) -> None: ...
    async def finish_tool_call(self, run_id: str, call_id: str, result: Any, *, is_error: bool) -> None: ...
    async def resolve_tool_call(self, run_id: str, call_id: str, resolution: Resolution) -> bool:
        """Decide about a call that was begun and has no result; `False` when it has one, or was decided about."""
        ...

    async def list_tool_calls(self, run_id: str) -> list[ToolCallRecord]:
        """In the order they began."""
        ...


class LeaseStore(Protocol):
    async def acquire_lease(self, key: str, holder: LeaseHolder, ttl: float) -> Lease | None:
        """`None` when `holder` has the lease now, for `ttl` seconds; else the lease that is in the way.

        Who has it already has it renewed. Leases that have expired, or whose process is gone from this host, are
        removed first. One transaction.
        """
        ...

    async def renew_leases(self, holder: LeaseHolder, keys: Sequence[str], ttl: float) -> list[str]:
        """Hold them for `ttl` seconds from now. Returns those that this holder does not hold any more."""
        ...

    async def release_lease(self, key: str, holder: LeaseHolder) -> None: ...
    async def list_leases(self) -> list[Lease]:
        """By key."""
        ...


class RuleStore(Protocol):
    async def save_rule(self, rule: PermissionRule) -> PermissionRule:
        """Remember a rule. The last decision for the same scope, key, tool and pattern replaces the earlier one."""
        ...

    async def list_rules(self, session_id: str | None, project: str | None = None) -> list[PermissionRule]:
        """The session's own rules, the project's, and the global ones."""
        ...

    async def revoke_rule(self, rule_id: str) -> bool: ...
    async def count_rule_use(self, rule_id: str) -> None: ...


class QuestionStore(Protocol):
    """A question is closed once: later closings and answers change nothing."""

    async def open_question(self, question: PermissionQuestion) -> None: ...
    async def close_question(self, request_id: str, outcome: str, decided_by: str) -> None: ...
    async def answer_question(
        self, request_id: str, *, allow: bool, decided_by: str, reason: str | None = None, at: float | None = None
    ) -> bool:
        """Close an open question before its deadline. `False`: too late (`at`, default now), or unknown."""
        ...

    async def answered_question(self, run_id: str, tool_call_id: str, arguments_hash: str) -> QuestionAnswer | None:
        """The latest answer about exactly this call."""
        ...

    async def expire_questions(self, now: float) -> list[PermissionQuestion]:
        """Close as denied by `timeout` what is past its deadline, and return it, oldest first."""
        ...

    async def open_questions(self, session_id: str | None = None) -> list[PermissionQuestion]:
        """Oldest first."""
        ...


class RuntimeStore(AgentStore, SessionStore, TranscriptStore, RunStore, LeaseStore, RuleStore, QuestionStore, Protocol):
    """Any store with these operations will do. All raise `StoreError`."""

    def close(self) -> None: ...


@functools.cache
def _host() -> str:
    """This machine; of a container, also whose process numbers these are."""
    try:
        namespace = Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    except OSError:  # not Linux
        return platform.node()
    return f"{platform.node()}/{namespace}"
