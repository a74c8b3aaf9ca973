"""How what is kept is asked for: protocols by what they keep, joined as `RuntimeStore`, and their records.

Rows are appended; a transcript is never rewritten. Every call has committed when it returns. Times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol, TypeVar

from mentra_nb.authorization import PermissionQuestion, PermissionRule
from mentra_nb.store.records import (
    AgentRecord,
    BackgroundJob,
    Entry,
    JobStatus,
    Lease,
    LeaseHolder,
    MemoryHit,
    MemoryRecord,
    QuestionAnswer,
    Resolution,
    RunRecord,
    RunState,
    SessionRecord,
    StoredConversation,
    TaskItem,
    TeamMember,
    TeamMessage,
    TeamRequest,
    ToolCallRecord,
)

T = TypeVar("T")


class AgentStore(Protocol):
    async def create_agent(self, agent: AgentRecord) -> None: ...
    async def load_agent(self, agent_id: str) -> AgentRecord | None: ...
    async def list_agents(self, runtime_identifier: str | None = None) -> list[AgentRecord]:
        """Return the agents of a runtime, or of every runtime, oldest first. Subagents are left out."""
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
        """The newest session of that name, id or agent (in that project, when given)."""
        ...

    async def load_conversation(self, name: str, project: str | None = None) -> StoredConversation | None:
        """Return the session that `load_session` finds, with its agent, runs and path length, in one read.

        Without such a session, `name` may be an agent's id; then `session` is `None`.
        """
        ...

    async def last_session(self, project: str | None, notebook: str | None) -> SessionRecord | None:
        """Return the newest session of exactly this project and notebook (`None`: of no project, no notebook)."""
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

    async def latest_run(self, agent_id: str) -> RunRecord | None:
        """The one started last, whatever the clocks said."""
        ...

    async def open_runs(self, agent_id: str) -> list[RunRecord]:
        """Those still running, or whose process died; oldest first."""
        ...

    async def run_entries(self, run_id: str) -> list[Entry]:
        """What a run appended, in the order of the path."""
        ...

    async def begin_tool_call(self, call: ToolCallRecord, *, holder: str | None = None) -> None: ...
    async def finish_tool_call(
        self, run_id: str, call_id: str, result: Any, *, is_error: bool, ends_turn: bool = False
    ) -> None: ...
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
        self, request_id: str, *, allow: bool, decided_by: str, reason: str | None = None
    ) -> bool:
        """Close an open question. Return `False` if it is unknown, closed, or past its deadline."""
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


class TaskStore(Protocol):
    """Task boards, each under its namespace."""

    async def load_tasks(self, namespace: str) -> list[TaskItem]:
        """By id."""
        ...

    async def mutate_tasks(self, namespace: str, change: Callable[[list[TaskItem]], T]) -> T:
        """Let `change` edit the list of tasks in place, and keep what it made of it. One transaction.

        Whatever `change` raises is raised here, and then nothing is kept. It runs on the store's thread, and again on
        a fresh list should another process have come between: it must do nothing else.
        """
        ...


class TeamStore(Protocol):
    """Teams, each under its key: members, mail, requests.

    Mail that was taken is in flight until it is acknowledged, or put back because the run it was for failed.
    """

    async def save_member(self, team: str, member: TeamMember) -> None:
        """Add or replace the member of that name."""
        ...

    async def list_members(self, team: str) -> list[TeamMember]:
        """By name."""
        ...

    async def post_message(self, team: str, recipients: Sequence[str], message: TeamMessage) -> None: ...
    async def take_messages(self, team: str, recipient: str) -> list[TeamMessage]:
        """What waits for this member, oldest first; in flight from now on."""
        ...

    async def acknowledge_messages(self, team: str, recipient: str, ids: Collection[str]) -> None: ...
    async def requeue_messages(self, team: str, recipient: str, ids: Collection[str] | None = None) -> int:
        """Let them wait again; without `ids`, everything in flight to this member. Returns how many."""
        ...

    async def count_messages(self, team: str, recipient: str) -> int:
        """How many wait."""
        ...

    async def save_request(self, team: str, request: TeamRequest) -> None: ...
    async def resolve_request(self, team: str, request_id: str, *, approve: bool, reason: str | None = None) -> bool:
        """Answer a pending request; `False` when there is none, or it was answered."""
        ...

    async def list_requests(self, team: str) -> list[TeamRequest]:
        """Oldest first."""
        ...


class BackgroundStore(Protocol):
    """Background jobs. The end of one is a notification, taken and acknowledged as mail is (`TeamStore`)."""

    async def start_job(self, job: BackgroundJob) -> None:
        """Raises `StoreError` when the agent has had a job of that id."""
        ...

    async def finish_job(
        self, agent_id: str, job_id: str, status: JobStatus, *, output_preview: str | None = None
    ) -> bool:
        """Close a running job and have its agent notified; `False` when it is not running."""
        ...

    async def list_jobs(self, agent_id: str) -> list[BackgroundJob]:
        """In the order they started."""
        ...

    async def take_notifications(self, agent_id: str) -> list[BackgroundJob]:
        """The jobs that ended and were not told of, in the order they ended; in flight from now on."""
        ...

    async def acknowledge_notifications(self, agent_id: str, job_ids: Collection[str]) -> None: ...
    async def requeue_notifications(self, agent_id: str, job_ids: Collection[str] | None = None) -> int:
        """Let them wait again; without ids, everything in flight to this agent. Returns how many."""
        ...

    async def count_notifications(self, agent_id: str) -> int:
        """How many wait."""
        ...

    async def recover_jobs(self, asker: LeaseHolder) -> list[BackgroundJob]:
        """Close as `interrupted` the running jobs whose process is gone, and return them.

        On the asker's host that is looked up; elsewhere a runtime with no lease left counts as gone.
        """
        ...


class MemoryStore(Protocol):
    """Long-term memory, each agent's its own."""

    async def save_memories(self, records: Sequence[MemoryRecord]) -> None:
        """Add or replace; what was forgotten under the same id is remembered again."""
        ...

    async def load_memory(self, agent_id: str, record_id: str) -> MemoryRecord | None: ...
    async def search_memories(self, agent_id: str, query: str, limit: int) -> list[MemoryHit]:
        """The best hits for any word of the query, best first; none for a query without words."""
        ...

    async def forget_memories(self, agent_id: str, record_ids: Collection[str]) -> int:
        """Hide them from now on. Returns how many were there to be hidden."""
        ...

    async def delete_memories(self, agent_id: str, record_ids: Collection[str]) -> int:
        """Remove them, forgotten ones too. Returns how many there were."""
        ...

    async def load_memory_cursor(self, agent_id: str) -> int | None:
        """The revision of the agent's history up to which it has been remembered."""
        ...

    async def save_memory_cursor(self, agent_id: str, revision: int) -> None: ...


class RuntimeStore(
    AgentStore,
    SessionStore,
    TranscriptStore,
    RunStore,
    LeaseStore,
    RuleStore,
    QuestionStore,
    TaskStore,
    TeamStore,
    BackgroundStore,
    MemoryStore,
    Protocol,
):
    """Any store with these operations will do. All raise `StoreError`."""

    def close(self) -> None: ...
