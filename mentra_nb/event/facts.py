"""What the events are whose fields are checked, and of them those that are recorded."""

from typing import ClassVar

from mentra_nb.content import Data
from mentra_nb.event.pieces import AgentEvent


class Fact(Data, AgentEvent):
    """An event whose fields are checked, and that has a JSON form."""

    agent_id: str


class RuntimeEvent(Fact):
    """A recorded event. Fields of the seed first, exact; what we add follows and is optional."""

    is_recorded: ClassVar[bool] = True
    kind: str

    def scope(self) -> str:
        """Return the value of the column `scope`: the agent, or the runtime instance."""
        return self.agent_id


class InTurn(RuntimeEvent):
    """A recorded event of a turn."""

    run_id: str | None = None


class OfCall(InTurn):
    """A recorded event of one tool call."""

    tool_name: str
    tool_call_id: str
