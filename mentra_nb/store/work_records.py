"""The records of what agents keep besides conversations: tasks, teams, memories, budgets. Times are Unix seconds.

They are apart so that a turn without them does not make their classes. `records.py` offers them with the others.
"""

from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from mentra_nb.amounts import Period, Unit
from mentra_nb.content import Data

TaskStatus = Literal["pending", "in_progress", "completed"]
MemoryKind = Literal["episode", "summary", "fact"]


class TaskItem(Data):
    """A task of a board. In JSON (`by_alias=True`) its names are in camelCase."""

    model_config: ClassVar[ConfigDict] = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    id: int
    subject: str
    description: str = ""
    status: TaskStatus = "pending"
    blocked_by: tuple[int, ...] = ()
    """The ids of the open tasks that must be completed before this one."""
    blocks: tuple[int, ...] = ()
    owner: str = ""
    working_directory: str | None = None


class TeamMember(Data):
    """A member of a team. `id` is its agent's; `failure` is the reason when `status` is `failed`.

    A member that is `dormant` is at work in no process; the store keeps the status that it had.
    """

    id: str
    name: str
    role: str
    model: str
    status: Literal["idle", "working", "failed", "shutdown", "dormant"] = "idle"
    failure: str | None = None


class TeamMessage(Data):
    """A message from one member of a team to others. In JSON (`by_alias=True`) the sender is `from`."""

    model_config: ClassVar[ConfigDict] = ConfigDict(populate_by_name=True)

    id: str
    type: Literal["message", "broadcast", "request", "response"] = "message"
    sender: str = Field(alias="from")
    content: str
    timestamp: float
    request_id: str | None = None
    protocol: str | None = None
    approve: bool | None = None


class TeamRequest(Data):
    """A request for another member's agreement. In JSON (`by_alias=True`) the sender is `from`, the recipient `to`."""

    model_config: ClassVar[ConfigDict] = ConfigDict(populate_by_name=True)

    request_id: str
    protocol: str
    sender: str = Field(alias="from")
    recipient: str = Field(alias="to")
    content: str
    status: Literal["pending", "approved", "rejected"] = "pending"
    created_at: float
    resolved_at: float | None = None
    resolution_reason: str | None = None


class MemoryRecord(Data):
    """A memory that outlives a conversation."""

    record_id: str
    agent_id: str
    """The owner: the id of an agent, `project:` and the folder of a project, or `global`."""
    kind: MemoryKind
    content: str
    source_revision: int = 0
    """The revision of the agent's history it comes from; later ones are greater."""
    created_at: float
    metadata: dict[str, Any] = Field(default_factory=dict)
    source: Literal["auto_ingest", "auto_compaction", "manual_pin"] | None = None
    pinned: bool = False
    made_by: str | None = None
    """The agent whose turn it comes from."""
    session_id: str | None = None
    run_id: str | None = None
    cell_id: str | None = None


class MemoryHit(MemoryRecord):
    """A memory found by a search. Higher `score`s are better; `why_retrieved` says in words what matched."""

    score: float
    why_retrieved: str | None = None


class MemoryQuery(NamedTuple):
    """A search in the memories of some owners for any word of a text."""

    owners: tuple[str, ...]
    text: str
    limit: int
    seen_by: str | None = None
    """An agent that has some of its own turns before it: their episodes and summaries are left out."""
    seen_from: int = 0
    """The revision of `seen_by` after which it has them before it."""
    seconds: float | None = None
    """How long the search may take."""


class BudgetClaim(NamedTuple):
    """What a reservation takes of one budget. `amount` and `limit` are in parts of the unit (`amounts.PARTS`)."""

    period: Period
    key: str
    """Which turn, session, day, project or month."""
    unit: Unit
    amount: int
    limit: int


class BudgetCount(NamedTuple):
    """How much of a budget is used, in parts of its unit."""

    spent: int = 0
    reserved: int = 0
    extra: int = 0
    """By how much a person has raised its limit."""
