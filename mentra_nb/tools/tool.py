"""What a tool is: its protocol, the context of a running call, and the output."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

from mentra_nb.authorization import Subject, ToolAuthorizationPreview
from mentra_nb.content import Image
from mentra_nb.forms import Form
from mentra_nb.permission.policy import RuntimePolicy
from mentra_nb.sandbox.executor import RuntimeExecutor
from mentra_nb.tools.schema import ToolError
from mentra_nb.tools.spec import ToolSpec
from mentra_nb.tools.template import AgentTemplate

T = TypeVar("T")


class Delegate(Protocol):
    """The service that gives a task to a subagent, within the turn's own limits."""

    def __call__(self, prompt: str, template: AgentTemplate | None = None, /) -> Awaitable[str]:
        """Return the subagent's answer; empty if it had none. Raises what its turn raises."""
        ...


class MainThread(NamedTuple):
    """The service that runs a function on the thread of the cell, as code in the cell runs."""

    run: Callable[[Callable[[], Any]], Awaitable[Any]]
    """Returns what the function returns. Raises what it raises, and `ToolError` when that thread takes no more work."""
    check: Callable[[], None]
    """Raises `ToolError` where no such thread waits for the turn."""


class WorkFolder(NamedTuple):
    """The service that says where a command runs that names no folder."""

    find: Callable[[], str | None]
    """Returns the folder, relative to the working directory; `None` is that one. Raises `ToolError` for several."""


@dataclass(frozen=True, eq=False)
class ToolContext:
    """What a running tool may know and use. Ask for it with a parameter annotated `ToolContext`.

    `services` maps a type to the service or application object of that type: `context.service(Delegate)`.

    Example:
        >>> @mn.tool
        ... def where(context: mn.ToolContext) -> str:
        ...     "Return the working directory."
        ...     return str(context.working_directory)
        >>> @mn.tool
        ... def currency(context: mn.ToolContext) -> str:
        ...     "Return the currency given to `Runtime.register_context`."
        ...     return context.app_context(dict)["currency"]
    """

    agent_id: str
    agent_name: str
    model: str
    run_id: str
    tool_call_id: str
    tool_name: str
    working_directory: Path
    policy: RuntimePolicy
    executor: RuntimeExecutor
    progress: Callable[[str], None] = lambda text: None
    """Show a line while the tool runs."""
    changed: Callable[[Any], None] = lambda entry: None
    """Record what the call did to files: an entry of the undo journal."""
    so_far: Callable[[ToolOutput], None] = lambda output: None
    """Keep what the call has done until now: its result says so if the call is stopped before it returns."""
    services: Mapping[type, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    """What a person filled in, for a tool with a form."""

    def service(self, kind: type[T]) -> T:
        """Return the service of exactly this type. Raises `ToolError` if there is none.

        Example:
            >>> @mn.tool
            ... def rates(context: mn.ToolContext) -> str:
            ...     "Return the currency given to `Runtime.register_context`."
            ...     return context.service(dict)["currency"]
        """
        try:
            return self.services[kind]  # type: ignore[no-any-return]
        except KeyError:
            raise ToolError(f"no {kind.__name__} is available to this tool") from None

    async def spawn_subagent(self, prompt: str, template: AgentTemplate | None = None) -> str:
        """Give a task to a subagent within the limits of this turn, and return its answer. Raises what its turn raises.

        Args:
            prompt: The task. The subagent knows nothing else of this conversation.
            template: What it is made from, where it is not as this agent.

        Example:
            >>> @mn.tool
            ... async def summary(context: mn.ToolContext, path: str) -> str:
            ...     "Return what a subagent makes of a file."
            ...     return await context.spawn_subagent(f"Summarise {path}.")
        """
        return await self.service(Delegate)(prompt, template)  # type: ignore[type-abstract]  # found by its type

    def app_context(self, kind: type[T]) -> T:
        """Return the object given to `Runtime.register_context` of exactly this type. Raises `ToolError`."""
        if kind not in self.services:
            raise ToolError(f"no application context of type {kind.__name__} is registered")
        return self.service(kind)


@dataclass(frozen=True)
class ToolOutput:
    """`content` goes to the model: text, any JSON value, else its `str`. `terminate` ends the turn after this round.

    `images` are shown to the model after it, where its provider has a place for them.

    Example:
        >>> @mn.tool
        ... def submit(answer: str):
        ...     "Submit the final answer."
        ...     return mn.ToolOutput("submitted", terminate=True)
    """

    content: Any
    terminate: bool = False
    images: tuple[Image, ...] = ()
    details: Any = None
    """Any JSON value for the record and for screens; the model does not read it."""


class Tool(ABC):
    """Something a model can call. Raising from `execute` is an error result; the turn goes on.

    A call goes through `validate`, `check_policy`, `subject` and `preview`, in this order, before anybody is asked.

    Example:
        >>> class Echo(mn.Tool):
        ...     spec = mn.ToolSpec(wire=mn.provider.ProviderToolSpec(name="echo"), reads_only=True)
        ...     async def execute(self, context, arguments):
        ...         return mn.ToolOutput(arguments)
        >>> Echo().spec.name
        'echo'
    """

    spec: ToolSpec
    acts_by_command: bool = False
    """Whether all that a call does is done by one command given to `context.executor`, so that it can be fenced."""
    companion: ClassVar[type[Any] | None] = None
    """The class of what each agent that is offered the tool keeps for it, made with the agent.

    It is a source of messages to the agent, and the service of its class for the tool's calls.
    """

    @abstractmethod
    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        """Run the call and return its result."""

    def validate(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments in normal form. Raises `ToolError` with one sentence when they do not fit the schema."""
        return arguments

    def is_parallel(self, arguments: dict[str, Any]) -> bool:
        """Return whether this call may run beside other parallel ones."""
        return self.spec.parallel

    def check_policy(self, context: ToolContext, arguments: dict[str, Any]) -> None:
        """Raise `PolicyViolation` when the policy forbids this call, whoever may allow it."""
        return

    def subject(self, context: ToolContext, arguments: dict[str, Any]) -> Subject:
        """Return what a rule's pattern is matched against: by default the arguments as compact JSON."""
        return Subject.text(
            json.dumps(arguments, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
        )

    def structured_input(self, context: ToolContext, arguments: dict[str, Any]) -> Any:
        """Return the arguments for a person to judge: resolved paths, no file contents."""
        return arguments

    def form(self, context: ToolContext, arguments: dict[str, Any]) -> Form | None:
        """Return what a person is asked for this call, whose answer is the decision; it is then in `context.values`.

        `None`: they are asked, if at all, whether it may run.
        """
        return None

    def preview(self, context: ToolContext, arguments: dict[str, Any]) -> ToolAuthorizationPreview:
        """Return what the call would do."""
        spec = self.spec
        return ToolAuthorizationPreview(
            working_directory=str(context.working_directory),
            capabilities=spec.capabilities,
            side_effect_level=spec.side_effect_level,
            durability=spec.durability,
            execution_category=spec.execution_category,
            approval_category=spec.approval_category,
            raw_input=arguments,
            structured_input=self.structured_input(context, arguments),
        )
