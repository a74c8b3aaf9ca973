"""The descriptor of a tool: what a model is shown, and what the runtime needs to schedule and authorize its calls."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from mentra_nb.authorization import CustomCapability, ToolCapability
from mentra_nb.content import Data
from mentra_nb.providers.base import ProviderToolSpec

RunAgain = Literal["none", "idempotent", "once"]
"""What a second run of a call would do: nothing, the same again, or something a person must decide about."""

ANSWERS = "mentra_terminal_"
"""What the name of a tool begins with that receives the typed answer of a turn."""


class ToolSpec(Data):
    """A tool's descriptor: its description for the provider, and what the runtime needs to schedule and authorize it.

    `loading_policy`, `side_effect_level`, `durability`, `execution_category` and `approval_category` are the original
    runtime's words, derived from the rest.

    Example:
        >>> def revenue(month: str) -> float:
        ...     return 2400.0
        >>> mn.tool(revenue).spec.input_schema["properties"]
        {'month': {'type': 'string'}}
    """

    wire: ProviderToolSpec
    """The tool's description for the provider."""
    capabilities: tuple[ToolCapability | CustomCapability, ...] = ()
    reads_only: bool = False
    """Whether a call changes nothing; then it runs unasked by default."""
    effect: RunAgain = "once"
    """What running a call a second time would do."""
    parallel: bool = False
    """Whether calls may run beside other parallel ones. Such a call cannot end the turn."""
    execution_timeout: float | None = None
    """Seconds after which a call is stopped and answered with an error; `None` is no limit."""
    asks: bool = True
    """Whether the tool's author wants a person asked before it runs."""

    @model_validator(mode="before")
    @classmethod
    def _reading_has_no_effect(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("reads_only"):
            others = [each for each in value.get("capabilities", ()) if each != ToolCapability.READ_ONLY]
            return {"effect": "none", **value, "capabilities": (*others, ToolCapability.READ_ONLY)}
        return value

    @property
    def name(self) -> str:
        """The name by which a model calls it."""
        return self.wire.name

    @property
    def description(self) -> str | None:
        """What a model reads about it."""
        return self.wire.description

    @property
    def input_schema(self) -> dict[str, Any]:
        """The JSON schema of its arguments."""
        return self.wire.input_schema

    @property
    def deferred(self) -> bool:
        """Whether a model sees only its name and one line about it until it asks for more."""
        return self.wire.deferred

    @property
    def loading_policy(self) -> str:
        """`Immediate` or `Deferred`."""
        return "Deferred" if self.deferred else "Immediate"

    @property
    def side_effect_level(self) -> str:
        """`None`, `LocalState`, `Process` or `External`."""
        if self.effect == "none":
            return "None"
        if {ToolCapability.PROCESS_EXEC, ToolCapability.BACKGROUND_EXEC} & set(self.capabilities):
            return "Process"
        local = {ToolCapability.FILESYSTEM_WRITE, ToolCapability.TASK_MUTATION, ToolCapability.CONTEXT_COMPACTION}
        return "LocalState" if local & set(self.capabilities) else "External"

    @property
    def durability(self) -> str:
        """`Ephemeral` or `ReplaySafe`."""
        return "ReplaySafe" if self.reads_only or self.effect == "idempotent" else "Ephemeral"

    @property
    def execution_category(self) -> str:
        """`ReadOnlyParallel`, `BackgroundJob`, `Delegation` or `ExclusiveLocalMutation`."""
        if ToolCapability.DELEGATION in self.capabilities:
            return "Delegation"
        if self.parallel:
            return "ReadOnlyParallel"
        return "BackgroundJob" if ToolCapability.BACKGROUND_EXEC in self.capabilities else "ExclusiveLocalMutation"

    @property
    def approval_category(self) -> str:
        """`ReadOnly`, `Background`, `Process`, `Filesystem`, `Delegation` or `Default`."""
        if self.reads_only:
            return "ReadOnly"
        categories = {
            ToolCapability.BACKGROUND_EXEC: "Background",
            ToolCapability.PROCESS_EXEC: "Process",
            ToolCapability.FILESYSTEM_WRITE: "Filesystem",
            ToolCapability.DELEGATION: "Delegation",
        }
        return next((name for kind, name in categories.items() if kind in self.capabilities), "Default")
