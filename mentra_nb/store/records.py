"""The records of the state store, all frozen. Times are Unix seconds."""

import functools
import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from pydantic import Field

from mentra_nb.authorization import PermissionDecision
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
JobStatus = Literal["running", "finished", "failed", "interrupted"]
Delivery = Literal["pending", "in_flight", "acknowledged"]


class AgentRecord(Data):
    """An agent, its settings and where its conversation is."""

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
    """The agent that made this one, for a subagent or teammate."""
    created_at: float
    updated_at: float


class SessionRecord(Data):
    """A conversation of a person with an agent."""

    id: str
    name: str
    """The name it was given; without one, its id."""
    agent_id: str
    model: str
    project: str | None = None
    notebook: str | None = None
    os_user: str | None = None
    """The user of the operating system who began it; not known of sessions that earlier versions began."""
    created_at: float
    updated_at: float

    @property
    def given_name(self) -> str | None:
        """The name it was given, if any."""
        return self.name if self.name != self.id else None


class ConversationSummary(Data):
    """A stored session, and how it has been used."""

    session: SessionRecord
    turns: int
    """Questions asked, also those whose turn failed. A turn that was resumed counts once."""
    used_at: float
    """When the last turn began."""
    first_prompt: str | None
    last_state: RunState
    """The state of the last turn."""


SAID = "said"
"""The team in whose mail is what a person says to an agent while it works; the recipient is the agent's id."""


class Entry(Data):
    """One message in an agent's transcript, which is a tree: each entry names the one before it."""

    id: str
    agent_id: str
    parent_id: str | None
    run_id: str | None
    kind: EntryKind
    message: Message
    created_at: float
    delivers: tuple[str, ...] = Field(default=(), exclude=True)
    """The ids of mail of `SAID` that is in flight once the entry is stored. Not stored with it."""


class RunRecord(Data):
    """A turn. `base` is the leaf it began at; `leaf` is where it moved the agent; `partial` is streamed text."""

    id: str
    agent_id: str
    state: RunState = "running"
    error: str | None = None
    base: str | None = None
    leaf: str | None = None
    partial: str = ""
    cell_id: str | None = None
    model: str | None = None
    """The model it began with, as provider/model; `None` for a turn of an earlier version."""
    resumes: str | None = None
    """The id of the turn that it continues."""
    started_at: float
    finished_at: float | None = None


class StoredConversation(Data):
    """A session with all that opening it needs, read at one moment."""

    session: SessionRecord | None
    """`None` for an agent without a session."""
    agent: AgentRecord
    latest_run: RunRecord | None
    """The run that was started last."""
    open_runs: tuple[RunRecord, ...]
    """The runs still marked as running, oldest first: at work in another process, or left by one that died."""
    path_length: int
    """The number of transcript entries up to the agent's leaf."""
    has_jobs: bool = False
    """Whether the agent has had background jobs."""
    has_said: bool = False
    """Whether something that a person said to the agent is not acknowledged."""


class ToolCallRecord(Data):
    """A tool call, stored before the tool runs. While `finished_at` is `None` the call may have run or not."""

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
    """The decision about a call whose result is unknown."""
    ends_turn: bool = False
    """Whether its result ended the turn."""


class ToolCallEnd(NamedTuple):
    """How a tool call ended."""

    call_id: str
    result: Any
    is_error: bool = False
    ends_turn: bool = False


class LeaseHolder(Data):
    """The holder of a lease: one runtime in one process, which is found by its `pid` on the same `host`."""

    runtime_id: str
    host: str
    pid: int
    process_started: float
    """A time (Unix seconds) at which the process ran: one with this pid that started later is another process."""

    @classmethod
    def here(cls, runtime_id: str) -> Self:
        """Return a holder in this process."""
        return cls(runtime_id=runtime_id, host=_host(), pid=os.getpid(), process_started=time.time())


class Lease(Data):
    """The right of one runtime to write what `key` names, until `expires_at`."""

    key: str
    holder: LeaseHolder
    acquired_at: float
    expires_at: float


class QuestionAnswer(Data):
    """The answer that closed a permission question."""

    request_id: str
    decision: PermissionDecision
    decided_at: float
    deadline: float
    """Unix seconds; after it the answer no longer holds."""


class BackgroundJob(Data):
    """A command that runs in the background. `owner` is the runtime whose process runs it."""

    agent_id: str
    id: str
    """Unique among all jobs of the agent."""
    command: str
    cwd: str
    status: JobStatus = "running"
    output_preview: str | None = None
    output_path: str | None = None
    """The file with the whole output."""
    owner: LeaseHolder
    started_at: float
    finished_at: float | None = None


ROOT_NAMESPACE = "4026531836"
"""The process namespace of a Linux machine outside any container."""


@functools.cache
def _host() -> str:
    """Return the name of this machine; in a container with its process namespace, as pids are only valid there."""
    try:
        namespace = Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    except OSError:  # not Linux
        namespace = ROOT_NAMESPACE
    return platform.node() if namespace == ROOT_NAMESPACE else f"{platform.node()}/{namespace}"


if TYPE_CHECKING:
    from mentra_nb.store.work_records import BudgetClaim as BudgetClaim
    from mentra_nb.store.work_records import BudgetCount as BudgetCount
    from mentra_nb.store.work_records import MemoryHit as MemoryHit
    from mentra_nb.store.work_records import MemoryKind as MemoryKind
    from mentra_nb.store.work_records import MemoryQuery as MemoryQuery
    from mentra_nb.store.work_records import MemoryRecord as MemoryRecord
    from mentra_nb.store.work_records import TaskItem as TaskItem
    from mentra_nb.store.work_records import TaskStatus as TaskStatus
    from mentra_nb.store.work_records import TeamMember as TeamMember
    from mentra_nb.store.work_records import TeamMessage as TeamMessage
    from mentra_nb.store.work_records import TeamRequest as TeamRequest
else:

    def __getattr__(name):
        """Make the records of tasks, teams and memories when the first of them is used."""
        if name.startswith("_"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from mentra_nb.store import work_records

        value = globals()[name] = getattr(work_records, name)
        return value

    def __dir__():
        from mentra_nb.store import work_records

        return sorted({*globals(), *vars(work_records)})
