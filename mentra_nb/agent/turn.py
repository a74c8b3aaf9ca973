"""One turn while it runs: what it uses, what it has reached, and what an agent shows of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mentra_nb.agent.answer import PendingMessage
from mentra_nb.agent.config import AgentConfig
from mentra_nb.agent.environment import AgentEnvironment
from mentra_nb.agent.limits import TurnLimits
from mentra_nb.agent.scheduler import Scheduler
from mentra_nb.agent.steering import RoundSource, Steering
from mentra_nb.agent.transcript import Transcript
from mentra_nb.content import Data, Message, Role, TokenUsage, ToolUse
from mentra_nb.errors import EmptyAssistantResponse
from mentra_nb.event import types as e
from mentra_nb.providers.base import Provider
from mentra_nb.store.records import BackgroundJob, Entry, EntryKind

if TYPE_CHECKING:
    from mentra_nb.agent.strategy import Adjustment
    from mentra_nb.permission.asking import Reviewer


class AgentSnapshot(Data):
    """What an agent is doing now. `run_generation` counts its turns in this process."""

    status: str
    """`Idle`, `AwaitingModel`, `Streaming`, `ExecutingTool`, `Interrupted`, `Finished` or `Failed`."""
    history_len: int
    current_text: str = ""
    """The text so far of the answer that is streaming."""
    pending_tool_uses: tuple[ToolUse, ...] = ()
    """The calls that have no result yet."""
    run_generation: int = 0
    background_tasks: tuple[BackgroundJob, ...] = ()
    """Its background jobs, in the order they started."""
    tasks: tuple[dict[str, Any], ...] = ()
    """Its task board as it last saw it, with the names that a model reads."""


@dataclass(eq=False, repr=False)
class Turn:
    """What one turn uses, and what it has reached so far.

    `model`, `provider` and `config` may change while it runs; each request uses the values at its beginning.
    """

    id: str
    agent_id: str
    model: str
    config: AgentConfig
    provider: Provider
    environment: AgentEnvironment
    transcript: Transcript
    limits: TurnLimits
    scheduler: Scheduler
    adjust: Callable[[Adjustment], Awaitable[None]]
    """Applies the changes of a strategy."""
    sources: Sequence[RoundSource]
    phase: str
    """As `AgentSnapshot.status`."""
    injected: Message | None = None
    """The strategy's message for the next request."""
    requests: int = 0
    retries: int = 0
    stop_reason: str | None = None
    """Why the turn ended; `None` until then."""
    stop_detail: str | None = None
    """What the server of the last answer says about why it stopped."""
    pending: PendingMessage | None = None
    """The answer that is streaming."""
    request: e.ModelRequestStarted | None = None
    """The model request whose answer is not complete."""
    opened: bool = False
    """Whether the stream of `request` is open."""
    usage: TokenUsage = field(default_factory=TokenUsage)
    reviewer: Reviewer | None = None
    """What advises on its questions, if anything does."""
    about: int = 0
    """The tokens of the open request, estimated; 0 while the conversation is short."""
    owed: list[Entry] = field(default_factory=list)
    """Entries of the transcript that are stored with the next one, or with the end of the turn."""

    def __post_init__(self) -> None:
        self.scheduler.path = self.transcript.entries

    @property
    def answer(self) -> Message | None:
        """The last message, if it is the model's and has text."""
        last = self.transcript.last
        return last.message if last and last.message.role is Role.ASSISTANT and last.message.text() else None

    def final_message(self) -> Message:
        """Return the model's last message. Raises `EmptyAssistantResponse` if it ended without one."""
        if self.answer is None:
            raise EmptyAssistantResponse(self.stop_detail)
        return self.answer

    def emit(self, event: e.AgentEvent) -> None:
        self.environment.bus.emit(event)

    def append(self, message: Message, kind: EntryKind | None = None) -> Entry:
        """Append a message to the transcript and return its entry, which says what that is said to the agent it has."""
        entry = self.transcript.append(message, self.id, kind)
        delivers = tuple(
            id for source in self.sources if isinstance(source, Steering) for id in source.delivered_by(message)
        )
        return entry.model_copy(update={"delivers": delivers}) if delivers else entry

    async def commit(self, message: Message, kind: EntryKind | None = None, *, is_last: bool = False) -> None:
        """Append a message to the transcript and store it; the last one is stored with the end of the turn."""
        self.owed.append(self.append(message, kind))
        if not is_last:
            await self.store_owed()

    async def store_owed(self) -> None:
        """Store the entries that are not stored yet."""
        entries, self.owed = self.owed, []
        if self.scheduler.unsaved is not None:
            await self.scheduler.save(self.scheduler.unsaved, entries)
        else:
            await self.environment.store.append_entries(entries, holder=self.environment.holder)
