"""The operations of a state store: one protocol per subject, joined as `RuntimeStore`.

Every call has committed when it returns. A transcript is only appended to, never rewritten. Times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mentra_nb.authorization import PermissionDecision, PermissionQuestion, PermissionRule
from mentra_nb.store.memory_store import MemoryStore
from mentra_nb.store.row_answers import RowAnswerStore

if TYPE_CHECKING:
    from mentra_nb.amounts import Period, Unit
    from mentra_nb.store.records import (
        AgentRecord,
        BackgroundJob,
        BudgetClaim,
        BudgetCount,
        ConversationSummary,
        Delivery,
        Entry,
        JobStatus,
        Lease,
        LeaseHolder,
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
        ToolCallEnd,
        ToolCallRecord,
    )

T = TypeVar("T")


class AgentStore(Protocol):
    """Agents."""

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
        """Change the given fields. Raises `StoreError` for an unknown agent."""
        ...


class SessionStore(Protocol):
    """Sessions: the named conversations of people with agents."""

    async def save_session(self, session: SessionRecord) -> None: ...
    async def load_session(self, name: str, project: str | None = None) -> SessionRecord | None:
        """Return the newest session whose name, id or agent is `name`, in `project` if given."""
        ...

    async def load_conversation(self, name: str, project: str | None = None) -> StoredConversation | None:
        """Return the session that `load_session` finds, with its agent, runs and path length, in one read.

        Without such a session, `name` may be an agent's id; then `session` is `None`.
        """
        ...

    async def last_session(self, project: str | None, notebook: str | None) -> SessionRecord | None:
        """Return the session used last of exactly this project and notebook (`None`: of no project, no notebook).

        A session in which no turn was begun has not been used.
        """
        ...

    async def list_sessions(self) -> list[SessionRecord]:
        """Return all sessions, oldest first."""
        ...

    async def list_conversations(self, project: str | None, notebook: str | None = None) -> list[ConversationSummary]:
        """Return the sessions of exactly this project, in which a turn was begun, the one used last at the end.

        With `notebook` only those of it.
        """
        ...

    async def delete_conversation(self, session_id: str) -> None:
        """Delete a session with its agent, its subagents, and all that is stored of them.

        Raises `LeaseUnavailable`, and deletes nothing, while a runtime holds one of the agents.
        """
        ...


class TranscriptStore(Protocol):
    """Transcripts: a tree of entries for each agent.

    A write with `holder` (a runtime's id) raises `LeaseUnavailable` unless that runtime holds the lease
    `agent:<agent id>`. An expired lease counts as held until another runtime takes it.
    """

    async def append_entries(self, entries: Sequence[Entry], *, holder: str | None = None) -> None:
        """Append all entries or none. The partial text of their turn is dropped."""
        ...

    async def load_path(self, agent_id: str, leaf: str | None, *, last: int | None = None) -> list[Entry]:
        """Return the entries from the root to `leaf`, or the `last` so many of them."""
        ...

    async def path_length(self, agent_id: str, leaf: str | None) -> int:
        """Return the number of entries from the root to `leaf`."""
        ...

    async def load_entry(self, agent_id: str, entry_id: str) -> Entry | None: ...
    async def children(self, agent_id: str, entry_id: str | None) -> list[Entry]:
        """Return the entries that follow this one, oldest first; for `None` the roots."""
        ...

    async def entries_of_run(self, agent_id: str, run_id: str) -> list[Entry]:
        """Return the entries that a turn added, oldest first."""
        ...

    async def set_leaf(self, agent_id: str, leaf: str | None, *, holder: str | None = None) -> None:
        """Let the next turn continue from `leaf`. Raises `UnknownEntry` when the agent has no such entry."""
        ...


class RunStore(Protocol):
    """Turns (`runs`) and their tool calls. `holder` is as in `TranscriptStore`."""

    async def start_run(self, run: RunRecord, *, entries: Sequence[Entry] = (), holder: str | None = None) -> None:
        """Store a turn that begins, with its first entries, in one transaction."""
        ...

    async def save_partial(self, run_id: str, text: str, *, holder: str | None = None) -> None:
        """Replace the partial text of a turn that is running. Does nothing for a closed turn."""
        ...

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
        """Append `entries` and close a turn, in one transaction. With `leaf` the next turn continues from there.

        Raises `StoreError` and changes nothing when the turn is closed already.
        """
        ...

    async def list_runs(self, agent_id: str, cell_id: str | None = None) -> list[RunRecord]:
        """Return the turns of an agent, oldest first; with `cell_id` only those of that cell."""
        ...

    async def latest_run(self, agent_id: str) -> RunRecord | None:
        """Return the turn that was stored last, regardless of the clocks of the machines."""
        ...

    async def open_runs(self, agent_id: str) -> list[RunRecord]:
        """Return the turns that are running, or whose process died, oldest first."""
        ...

    async def run_entries(self, run_id: str) -> list[Entry]:
        """Return the entries that a turn appended, in the order of the path."""
        ...

    async def begin_tool_call(self, call: ToolCallRecord, *, holder: str | None = None) -> None:
        """Store a call that is about to run. One with effects survives a power cut from then on."""
        ...

    async def finish_tool_call(
        self, run_id: str, end: ToolCallEnd, *, entries: Sequence[Entry] = (), holder: str | None = None
    ) -> None:
        """Store the result of a call, and append all `entries` with it or nothing at all."""
        ...

    async def resolve_tool_call(self, run_id: str, call_id: str, resolution: Resolution) -> bool:
        """Store a decision about a call without a result. Return `False` when it has a result or a decision."""
        ...

    async def keep_result(
        self, agent_id: str, run_id: str, call_id: str, text: str, *, holder: str | None = None
    ) -> None:
        """Store the whole result of a call of which the transcript has a part."""
        ...

    async def load_result(self, agent_id: str, call_id: str) -> str | None:
        """Return the whole result of a call that was kept; of several calls with that id, of the latest."""
        ...

    async def list_tool_calls(self, run_id: str) -> list[ToolCallRecord]:
        """Return the tool calls of a turn in the order they began."""
        ...


class LeaseStore(Protocol):
    """Leases: the right of one runtime to write."""

    async def acquire_lease(self, key: str, holder: LeaseHolder, ttl: float) -> Lease | None:
        """Take or renew a lease for `ttl` seconds. Return `None`, or the lease of another holder that prevents it.

        Leases that have expired, or whose process on this host has ended, are removed first, in the same transaction.
        """
        ...

    async def renew_leases(self, holder: LeaseHolder, keys: Sequence[str], ttl: float) -> list[str]:
        """Renew leases for `ttl` seconds from now. Return the keys that this holder has lost."""
        ...

    async def release_lease(self, key: str, holder: LeaseHolder) -> None: ...
    async def list_leases(self) -> list[Lease]:
        """Return all leases, by key."""
        ...


class RuleStore(Protocol):
    """Permission rules."""

    async def save_rule(self, rule: PermissionRule) -> PermissionRule:
        """Store a rule and return it. It replaces one with the same scope, key, tool and pattern."""
        ...

    async def list_rules(self, session_id: str | None, project: str | None = None) -> list[PermissionRule]:
        """Return the rules of the session, those of the project and the global ones, oldest first."""
        ...

    async def revoke_rule(self, rule_id: str) -> bool:
        """Delete a rule. Return `False` when there is no rule with that id."""
        ...

    async def count_rule_use(self, rule_id: str) -> None: ...


class QuestionStore(Protocol):
    """Permission questions. Each is closed once, whichever process is first: later answers change nothing."""

    async def open_question(self, question: PermissionQuestion) -> None: ...
    async def close_question(self, request_id: str, decision: PermissionDecision, *, in_time: bool = False) -> bool:
        """Close an open question. Return `False` if it is unknown or closed, or with `in_time` past its deadline."""
        ...

    async def question_answer(self, request_id: str) -> QuestionAnswer | None:
        """Return what closed a question; `None` while it is open."""
        ...

    async def answered_question(self, run_id: str, tool_call_id: str, arguments_hash: str) -> QuestionAnswer | None:
        """Return the latest answer about exactly this call."""
        ...

    async def stopped_questions(self, run_id: str) -> list[PermissionQuestion]:
        """Return the questions that were closed because their turn was stopped, oldest first."""
        ...

    async def expire_questions(self, now: float) -> list[PermissionQuestion]:
        """Close the questions past their deadline as denied by `timeout`. Return them, oldest first."""
        ...

    async def open_questions(self, session_id: str | None = None) -> list[PermissionQuestion]:
        """Return the open questions of a session, or of all sessions, oldest first."""
        ...


class TaskStore(Protocol):
    """Task boards, one per namespace."""

    async def load_tasks(self, namespace: str) -> list[TaskItem]:
        """Return the tasks of a board, by id."""
        ...

    async def mutate_tasks(self, namespace: str, change: Callable[[list[TaskItem]], T]) -> T:
        """Let `change` edit the list of tasks in place, store the result in one transaction, return what it returned.

        An error of `change` is raised here and nothing is stored. `change` runs on the store's thread, and again on a
        fresh list if another process interfered, so it must have no other effects.
        """
        ...


class TeamStore(Protocol):
    """Teams, one per key: members, mail, requests.

    Mail that was taken is in flight until it is acknowledged, or put back because the turn it was taken for failed.
    """

    async def save_member(self, team: str, member: TeamMember) -> None:
        """Add or replace the member of that name."""
        ...

    async def list_members(self, team: str) -> list[TeamMember]:
        """Return the members of a team, by name."""
        ...

    async def post_message(self, team: str, recipients: Sequence[str], message: TeamMessage) -> None: ...
    async def take_messages(self, team: str, recipient: str) -> list[TeamMessage]:
        """Take the pending mail of this member and return it, oldest first."""
        ...

    async def open_messages(self, team: str, recipient: str) -> list[tuple[TeamMessage, Delivery]]:
        """Return the mail of this member that is pending or in flight, oldest first, without taking it."""
        ...

    async def mark_messages(self, team: str, recipient: str, ids: Collection[str], delivery: Delivery) -> None:
        """Set the state of mail, whatever it is in."""
        ...

    async def acknowledge_messages(self, team: str, recipient: str, ids: Collection[str]) -> None: ...
    async def requeue_messages(self, team: str, recipient: str, ids: Collection[str] | None = None) -> int:
        """Put mail in flight to this member back, all of it without `ids`. Return how many messages."""
        ...

    async def count_messages(self, team: str, recipient: str) -> int:
        """Return the number of pending messages."""
        ...

    async def save_request(self, team: str, request: TeamRequest) -> None: ...
    async def resolve_request(self, team: str, request_id: str, *, approve: bool, reason: str | None = None) -> bool:
        """Answer a request. Return `False` when it is unknown or answered already."""
        ...

    async def list_requests(self, team: str) -> list[TeamRequest]:
        """Return the requests of a team, oldest first."""
        ...


class BackgroundStore(Protocol):
    """Background jobs. The end of a job is a notification, taken and acknowledged like mail in `TeamStore`."""

    async def start_job(self, job: BackgroundJob) -> None:
        """Store a job that begins. Raises `StoreError` when the agent has had a job with that id."""
        ...

    async def finish_job(
        self, agent_id: str, job_id: str, status: JobStatus, *, output_preview: str | None = None
    ) -> bool:
        """Close a job and leave a notification for its agent. Return `False` when it is not running."""
        ...

    async def list_jobs(self, agent_id: str) -> list[BackgroundJob]:
        """Return the jobs of an agent in the order they started."""
        ...

    async def take_notifications(self, agent_id: str) -> list[BackgroundJob]:
        """Take the pending notifications and return their jobs in the order they ended."""
        ...

    async def acknowledge_notifications(self, agent_id: str, job_ids: Collection[str]) -> None: ...
    async def requeue_notifications(self, agent_id: str, job_ids: Collection[str] | None = None) -> int:
        """Put notifications in flight to this agent back, all of them without `job_ids`. Return how many."""
        ...

    async def count_notifications(self, agent_id: str) -> int:
        """Return the number of pending notifications."""
        ...

    async def recover_jobs(self, asker: LeaseHolder) -> list[BackgroundJob]:
        """Close the jobs whose process has ended as `interrupted`, and return them.

        The asker's host is checked for the process; on another host a runtime without a lease counts as ended.
        """
        ...


class BudgetStore(Protocol):
    """Budgets: what was spent of each, and what is reserved. Amounts are in parts of a unit (`amounts.PARTS`)."""

    @property
    def whose(self) -> str:
        """Whose budgets of a day or month are counted, where several people share the store; else empty."""
        ...

    async def reserve_budget(
        self, reservation_id: str, holder: LeaseHolder, claims: Sequence[BudgetClaim]
    ) -> tuple[BudgetClaim, BudgetCount] | None:
        """Reserve all claims, or none: then return the first that does not fit, and how much of its budget is used."""
        ...

    async def settle_budget(self, reservation_id: str, spent: Mapping[Unit, int] | None) -> bool:
        """Count what was spent, by unit, in place of what was reserved; `None` is all of it.

        Return `False` and change nothing if it is settled already.
        """
        ...

    async def extend_budget(self, period: Period, key: str, unit: Unit, more: int) -> None:
        """Raise the limit of one budget from now on, for every process."""
        ...

    async def count_budget(self, period: Period, key: str, unit: Unit) -> BudgetCount:
        """Return how much of a budget is used."""
        ...

    async def settle_left_behind(self, asker: LeaseHolder) -> int:
        """Count all that dead runtimes had reserved as spent, but for batches. Return how many reservations that were.

        The asker's host is checked for the process; on another host a runtime without a lease counts as ended.
        """
        ...


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
    BudgetStore,
    RowAnswerStore,
    Protocol,
):
    """All operations of a state store. Each may raise `StoreError`.

    What was stored survives the death of the process. What a person decided (an answer, a rule, what happens to an
    unknown call) and a call that is about to have effects survive a power cut too, with all that was stored before.
    """

    def close(self) -> None:
        """Close the connection. The next call opens it again."""
        ...
