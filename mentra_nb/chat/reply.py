"""The reply of a turn: its text or value, its usage and its tool calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mentra_nb.content import TokenUsage
from mentra_nb.errors import OperationDenied, StoreError, without_control
from mentra_nb.event import types as e
from mentra_nb.pricing import cost_usd
from mentra_nb.providers.base import ModelInfo
from mentra_nb.words import counted

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ToolCallSummary:
    """A tool call of the turn. `duration_ms` is `None` if it never ran."""

    name: str
    summary: str
    is_error: bool
    duration_ms: int | None
    arguments: dict[str, Any] | None = field(default=None, repr=False)
    """What it ran with; `None` if it never ran."""
    details: Any = field(default=None, repr=False)
    """What the tool says of it for the record."""


@dataclass
class Reply:
    """The answer of one turn. `str(reply)` is its text.

    `usage` counts tokens over the whole turn, its subagents included; `seconds` is wall time; `cost` is in US dollars,
    `None` when no price is known for the model.

    Example:
        >>> reply = mn.ask("What was the revenue in March?")
        >>> reply
        <Reply 'Revenue in March was 2400 dollars.' from example/small, 0 tool calls>
        >>> reply.usage
        TokenUsage(input_tokens=120, output_tokens=8)
    """

    text: str
    model: str
    session: str
    turn_id: str
    stop_reason: str
    seconds: float
    usage: TokenUsage
    cost: float | None = None
    tools: list[ToolCallSummary] = field(default_factory=list)
    value: Any = None
    """The answer as the type given as `as_`; `None` without one."""
    notice: str | None = None
    shown: int | None = None
    """The `n` of `In[n]` of the cell that has streamed it: its next display in that cell shows nothing."""
    rounds: list[str] = field(default_factory=list)
    """The text of each message of the model; between them tools ran. `text` is that of the last."""
    code: str = ""
    """All Python that the turn ran in the kernel, in order."""

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        lines = self.text.strip().splitlines()
        first = repr(lines[0][:60]) if lines else "(no text)"
        if self.value is not None:
            first = repr(self.value)
        return f"<Reply {first} from {self.model}, {counted(len(self.tools), 'tool call')}>"

    @property
    def blocks(self) -> list[str]:
        """The blocks of code in what the model said; number 1 on the page is `blocks[0]`."""
        return [code for _, code in blocks_of(self)]

    def to_df(self) -> pd.DataFrame:
        """Return the value as a frame: a row for each element of a list, a column for each field.

        Raises:
            OperationDenied: the answer was not asked for as a type.

        Example:
            >>> mn.ask("Which of these is a city? Oslo, Norway", as_=list[str]).to_df().value.tolist()
            ['Oslo']
        """
        from mentra_nb.chat.as_frame import to_df

        if self.value is None:
            raise OperationDenied("this reply has no value: ask with as_, such as mn.ask(prompt, as_='df')")
        return to_df(self.value)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        from mentra_nb.page.render import bundle, count_code, value_html

        if self.value is not None:
            return {"text/html": value_html(self.value), "text/plain": without_control(repr(self.value))}
        return bundle(self.text, first_code=1 + sum(map(count_code, self.rounds[:-1])))


def blocks_of(reply: Reply) -> list[tuple[str, str]]:
    """Return the language and the text of each block of code in what the model said."""
    from mentra_nb.page.render import code_in

    return [block for text in reply.rounds or [reply.text] for block in code_in(text)]


class ReplyBuilder:
    """Builds a reply from the events of its turn. Calls `ended` with the turn's stop reason."""

    def __init__(self, ended: Callable[[str], None]) -> None:
        self.ended = ended
        self.tools: list[ToolCallSummary] = []
        self.finished: e.TurnFinished | None = None
        self.summaries: dict[str, str] = {}
        self.rounds: list[str] = []
        self.code: list[str] = []
        self.subagents: list[e.SubagentFinished] = []
        self.arguments: dict[str, dict[str, Any]] = {}

    def hear(self, event: e.AgentEvent) -> None:
        """Take in an event of the turn."""
        match event:
            case e.ToolAuthorizationFinished():
                self.summaries[event.tool_call_id] = event.subject or ""
            case e.ToolExecutionStarted():
                self.arguments[event.tool_call_id] = arguments = event.input or {}
                if event.tool_name == "python" and isinstance(code := arguments.get("code"), str):
                    self.code.append(code.rstrip("\n"))
            case e.ToolExecutionFinished():
                self.tools.append(
                    ToolCallSummary(
                        event.tool_name,
                        self.summaries.get(event.tool_call_id, ""),
                        event.is_error,
                        event.duration_ms,
                        self.arguments.get(event.tool_call_id),
                        event.details,
                    )
                )
            case e.SubagentFinished():
                self.subagents.append(event)
            case e.AssistantMessageCommitted():
                self.rounds.append(event.message.text())
            case e.TurnFinished():
                self.finished = event
                self.ended(event.stop_reason)

    def _cost(self, model: ModelInfo, usage: TokenUsage) -> float | None:
        """Return what the turn and its subagents cost in US dollars; `None` if one of the prices is not known."""
        costs = [cost_usd(model.provider, model.id, usage)]
        costs += [
            cost_usd(each.provider, each.model, each.usage) for each in self.subagents if not each.usage.is_empty()
        ]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == len(costs) else None

    def reply(self, model: ModelInfo, session_id: str, value: Any = None) -> Reply:
        """Return the reply. Raises `StoreError` if no event said that the turn has ended."""
        done = self.finished
        if done is None:
            raise StoreError("the turn ended without a turn_finished event")
        return Reply(
            text=done.text,
            model=str(model),
            session=session_id,
            turn_id=done.run_id or "",
            stop_reason=done.stop_reason,
            seconds=(done.duration_ms or 0) / 1000,
            usage=sum((each.usage for each in self.subagents), done.usage),
            cost=self._cost(model, done.usage),
            tools=self.tools,
            value=value,
            rounds=self.rounds,
            code="\n\n".join(self.code),
        )
