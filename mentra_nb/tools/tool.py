"""Tools: the descriptor, the context of a running call, and how a function becomes a tool."""

from __future__ import annotations

import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, get_type_hints, overload

import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from mentra_nb.authorization import CustomCapability, Subject, ToolAuthorizationPreview, ToolCapability
from mentra_nb.content import Data, Image, is_too_deep
from mentra_nb.errors import InvalidTool
from mentra_nb.permission.binding import contained_call
from mentra_nb.permission.policy import RuntimePolicy
from mentra_nb.providers.base import ProviderToolSpec
from mentra_nb.sandbox.executor import RuntimeExecutor
from mentra_nb.tools.schema import ToolError as ToolError
from mentra_nb.tools.schema import check_describable, description_in, fitted, schema_of, validated

Effect = Literal["none", "idempotent", "once"]
"""What a second run of a call would do: nothing, the same again, or something a person must decide about."""

T = TypeVar("T")


class ToolSpec(Data):
    """A tool's descriptor: its description for the provider, and what the runtime needs to schedule and authorize it.

    `side_effect_level`, `durability`, `execution_category` and `approval_category` are the original runtime's levels,
    derived from the rest.

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
    effect: Effect = "once"
    """What running a call a second time would do."""
    parallel: bool = False
    """Whether calls may run beside other parallel ones. Such a call cannot end the turn."""
    execution_timeout: float | None = None
    """Seconds."""
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
        if self.parallel:
            return "ReadOnlyParallel"
        if ToolCapability.BACKGROUND_EXEC in self.capabilities:
            return "BackgroundJob"
        return "Delegation" if ToolCapability.DELEGATION in self.capabilities else "ExclusiveLocalMutation"

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


class Delegate(Protocol):
    """The service that gives a task to a subagent, within the turn's own limits."""

    def __call__(self, prompt: str, /) -> Awaitable[str]:
        """Return the subagent's answer. Raises what its turn raises."""
        ...


@dataclass(frozen=True)
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
    services: Mapping[type, Any] = field(default_factory=dict)

    def service(self, kind: type[T]) -> T:
        """Return the service of exactly this type. Raises `ToolError` if there is none.

        Example:
            >>> from mentra_nb.tools.tool import Delegate
            >>> @mn.tool
            ... async def summary(context: mn.ToolContext, path: str) -> str:
            ...     "Return what a subagent makes of a file."
            ...     return await context.service(Delegate)(f"Summarise {path}.")
        """
        try:
            return self.services[kind]  # type: ignore[no-any-return]
        except KeyError:
            raise ToolError(f"no {kind.__name__} is available to this tool") from None

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


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=False)


class FunctionTool(Tool):
    """A plain function as a tool: schema from its signature, hints and docstring.

    Synchronous functions run on a worker thread, coroutine functions on the engine's loop.

    Example:
        >>> def area(width: float, height: float) -> float:
        ...     return width * height
        >>> mn.FunctionTool(area, reads_only=True).spec.reads_only
        True
    """

    def __init__(
        self, function: Callable[..., Any], *, name: str | None = None, asks: bool = True, reads_only: bool = False
    ) -> None:
        self.function = function
        self._name = str(name or getattr(function, "__name__", ""))
        if not self._name.isidentifier():
            raise InvalidTool(f"a tool needs a name that is an identifier; {self._name!r} is not: pass name=…")
        arguments, self._context_parameter = self._read_signature()
        self.arguments: type[BaseModel] = arguments
        try:
            schema = schema_of(self.arguments)
        except Exception as error:
            raise self._indescribable(error) from error
        self.spec: ToolSpec = ToolSpec(
            wire=ProviderToolSpec(
                name=self._name,
                description=(self._doc.description or "").strip() or None,
                input_schema=schema,
            ),
            reads_only=reads_only,
            parallel=reads_only,
            asks=asks,
        )

    @cached_property
    def _doc(self) -> Any:
        from docstring_parser import parse

        return parse(inspect.getdoc(self.function) or "")

    def _read_signature(self) -> tuple[type[BaseModel], str | None]:
        try:
            signature = inspect.signature(self.function)
        except (TypeError, ValueError) as error:
            raise InvalidTool(f"{self._name}() has no signature that can be read: wrap it in a function") from error
        try:
            hints = get_type_hints(self.function, include_extras=True)
        except Exception as error:
            raise InvalidTool(f"the type hints of {self._name}() cannot be resolved: {error}") from error
        described = {p.arg_name: p.description for p in self._doc.params}
        fields: dict[str, Any] = {}
        context = None
        for number, parameter in enumerate(signature.parameters.values()):
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise InvalidTool(f"{self._name}() takes {parameter}: a tool's parameters must be plain named ones")
            if parameter.name not in hints:
                raise InvalidTool(
                    f"{self._name}() has no type hint for '{parameter.name}': a model must know what to send, "
                    f"for example {parameter.name}: {_suggested(parameter.default)}"
                )
            hint = hints[parameter.name]
            if hint is ToolContext:
                context = parameter.name
                continue
            default = ... if parameter.default is parameter.empty else parameter.default
            description = description_in(hint) or described.get(parameter.name)
            # an alias allows any parameter name, also names that pydantic's model class uses itself
            about = Field(default, alias=parameter.name, description=description)
            fields[f"argument_{number}"] = (hint, about)
        try:
            return create_model(self._name, __base__=_Arguments, **fields), context
        except Exception as error:
            raise self._indescribable(error) from error

    def _indescribable(self, error: Exception) -> InvalidTool:
        """Return the error about a parameter that no JSON Schema can describe; raise it if the parameter is known."""
        hints = get_type_hints(self.function, include_extras=True)
        names = inspect.signature(self.function).parameters
        check_describable(self._name, {name: hints[name] for name in names if hints.get(name) is not ToolContext})
        first = str(error).partition("\n")[0]
        return InvalidTool(f"{self._name}() has a parameter no JSON Schema can describe: {first}")

    def validate(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return fitted(self.arguments, arguments)[1]

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        parsed = validated(self.arguments, arguments)
        keywords = {str(field.alias): getattr(parsed, name) for name, field in type(parsed).model_fields.items()}
        if self._context_parameter:
            keywords[self._context_parameter] = context
        if inspect.iscoroutinefunction(self.function):
            result = await self.function(**keywords)
        else:
            # a thread cannot be interrupted: when the turn is stopped it is abandoned and its result dropped
            result = await anyio.to_thread.run_sync(partial(_called, self.function, keywords), abandon_on_cancel=True)
            if inspect.isawaitable(result):
                result = await result
        return result if isinstance(result, ToolOutput) else ToolOutput(result)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<tool {self._name}{inspect.signature(self.function)}>"


def _suggested(default: Any) -> str:
    return type(default).__name__ if isinstance(default, bool | int | float | str | list | dict) else "str"


def _called(function: Callable[..., Any], keywords: dict[str, Any]) -> Any:
    """Call a plain function on this thread, and put what it returns into words here too."""

    def call() -> Any:
        result = function(**keywords)
        return result if isinstance(result, ToolOutput) or inspect.isawaitable(result) else as_content(result)

    return contained_call(call)


def as_content(value: Any) -> Any:
    """Return a value as text or JSON: `None` is empty, models are dumped, anything else becomes its `str`.

    JSON that is nested too deep to be stored becomes its text.
    """
    if value is None:
        return ""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if not isinstance(value, str):
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
            text.encode()
            value = text if is_too_deep(value) else value
        except (TypeError, ValueError, RecursionError):
            value = str(value)
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


@overload
def tool(function: Callable[..., Any], /) -> FunctionTool: ...
@overload
def tool(
    *, asks: bool = True, reads_only: bool = False, name: str | None = None
) -> Callable[[Callable[..., Any]], FunctionTool]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    asks: bool = True,
    reads_only: bool = False,
    name: str | None = None,
) -> FunctionTool | Callable[[Callable[..., Any]], FunctionTool]:
    """Make a function a tool: `@tool`, or `@tool(asks=False, reads_only=True)`.

    The model sees its name, docstring and parameters (from the type hints, which each of them must have). `asks=False`
    lets it run unasked; `reads_only=True` declares that it changes nothing, so it also may run beside others.

    Raises:
        InvalidTool: the signature cannot be offered to a model.

    Example:
        >>> @mn.tool(reads_only=True, asks=False)
        ... def revenue(month: str) -> float:
        ...     "Return the revenue of a month such as 2026-03."
        ...     return 2400.0
        >>> revenue
        <tool revenue(month: str) -> float>
        >>> revenue("2026-03")
        2400.0
    """
    make = partial(FunctionTool, asks=asks, reads_only=reads_only, name=name)
    return make if function is None else make(function)


def as_tool(item: Tool | Callable[..., Any]) -> Tool:
    """Return a tool as it is, or make a function one. Raises `InvalidTool` for anything else."""
    if isinstance(item, Tool):
        return item
    if callable(item):
        return FunctionTool(item)
    raise InvalidTool(f"{item!r} is neither a tool nor a function")
