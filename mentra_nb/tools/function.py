"""How a plain function becomes a tool: `@tool`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cached_property, partial
from typing import Annotated, Any, Literal, get_type_hints, overload

import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo

from mentra_nb.errors import InvalidTool
from mentra_nb.permission.binding import contained_call
from mentra_nb.providers.base import ProviderToolSpec
from mentra_nb.tools.hints import descriptions_in, readable
from mentra_nb.tools.results import as_output
from mentra_nb.tools.schema import check_describable, fitted, schema_of, validated
from mentra_nb.tools.spec import ToolSpec
from mentra_nb.tools.tool import MainThread, Tool, ToolContext, ToolOutput


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=False, defer_build=True)


class FunctionTool(Tool):
    """A plain function as a tool: schema from its signature, hints and docstring.

    Synchronous functions run on a worker thread, or with `main_thread` on that of the cell; coroutine functions run on
    the engine's loop. The options are those of `tool`.

    Example:
        >>> def area(width: float, height: float) -> float:
        ...     return width * height
        >>> spec = mn.FunctionTool(area, reads_only=True, timeout=30, deferred=True).spec
        >>> spec.execution_category, spec.execution_timeout, spec.loading_policy
        ('ReadOnlyParallel', 30.0, 'Deferred')
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        asks: bool = True,
        reads_only: bool = False,
        timeout: float | None = None,
        deferred: bool = False,
        main_thread: bool = False,
        effect: Literal["none", "idempotent", "once"] | None = None,
        parallel: bool | None = None,
    ) -> None:
        self.function = function
        self.main_thread: bool = main_thread
        self._name = str(name or getattr(function, "__name__", ""))
        if not self._name.isidentifier():
            raise InvalidTool(f"a tool needs a name that is an identifier; {self._name!r} is not: pass name=…")
        if self.main_thread and inspect.iscoroutinefunction(function):
            raise InvalidTool(
                f"{self._name}() is asynchronous and runs on the engine's loop: main_thread is not for it"
            )
        if timeout is not None and not timeout > 0:
            raise InvalidTool(f"the time-out of {self._name}() must be more than 0 seconds; {timeout!r} is not")
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
                deferred=deferred,
            ),
            reads_only=reads_only,
            effect=effect or ("none" if reads_only else "once"),
            parallel=(reads_only if parallel is None else parallel) and not self.main_thread,
            execution_timeout=timeout,
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
        described = descriptions_in(self.function, hints)
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
            # an alias allows any parameter name, also names that pydantic's model class uses itself
            fields[f"argument_{number}"] = _field(parameter, readable(hint), described.get(parameter.name))
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

    def check_policy(self, context: ToolContext, arguments: dict[str, Any]) -> None:
        if self.main_thread:
            context.service(MainThread).check()

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        parsed = validated(self.arguments, arguments)
        keywords = {str(field.alias): getattr(parsed, name) for name, field in type(parsed).model_fields.items()}
        if self._context_parameter:
            keywords[self._context_parameter] = context
        if inspect.iscoroutinefunction(self.function):
            result = await self.function(**keywords)
        elif self.main_thread:
            result = await context.service(MainThread).run(partial(_called, self.function, keywords))
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


def _field(parameter: inspect.Parameter, hint: Any, description: str | None) -> tuple[Any, Any]:
    """Return a parameter as a field of a model. Its default may be a `Field`, which has the default and more."""
    default: Any = ... if parameter.default is parameter.empty else parameter.default
    if not isinstance(default, FieldInfo):
        return hint, Field(default, alias=parameter.name, description=description)
    about: Any = {"default": default.default}
    if default.default_factory is not None:
        about = {"default_factory": default.default_factory}
    about |= {"examples": default.examples, "json_schema_extra": default.json_schema_extra}
    about |= {"alias": parameter.name, "description": default.description or description}
    return Annotated[hint, *default.metadata] if default.metadata else hint, Field(**about)


def _suggested(default: Any) -> str:
    return type(default).__name__ if isinstance(default, bool | int | float | str | list | dict) else "str"


def _called(function: Callable[..., Any], keywords: dict[str, Any]) -> Any:
    """Call a plain function on this thread, and put what it returns into words here too."""

    def call() -> Any:
        result = function(**keywords)
        return result if inspect.isawaitable(result) else as_output(result)

    return contained_call(call)


@overload
def tool(function: Callable[..., Any], /) -> FunctionTool: ...
@overload
def tool(
    *,
    name: str | None = None,
    asks: bool = True,
    reads_only: bool = False,
    timeout: float | None = None,
    deferred: bool = False,
    main_thread: bool = False,
    effect: Literal["none", "idempotent", "once"] | None = None,
    parallel: bool | None = None,
) -> Callable[[Callable[..., Any]], FunctionTool]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    asks: bool = True,
    reads_only: bool = False,
    timeout: float | None = None,
    deferred: bool = False,
    main_thread: bool = False,
    effect: Literal["none", "idempotent", "once"] | None = None,
    parallel: bool | None = None,
) -> FunctionTool | Callable[[Callable[..., Any]], FunctionTool]:
    """Make a function a tool: `@tool`, or `@tool(asks=False, reads_only=True)`.

    The model sees its name, docstring and parameters (from the type hints, which each of them must have).

    Args:
        name: what a model calls it by; by default the function's name.
        asks: whether a person is asked before it runs.
        reads_only: whether it changes nothing.
        timeout: seconds after which a call is answered with an error. A plain function is abandoned then: what it still
            does is not stopped.
        deferred: whether a model sees only its name and one line about it until it asks for more, which keeps prompts
            short when there are many tools.
        main_thread: whether it runs on the thread of the cell, as code in the cell does; not for `async def`.
        effect: what running a call again would do after a crash: `none`, the same again (`idempotent`), or something a
            person must decide about (`once`, the default of what does not only read).
        parallel: whether calls may run beside other such calls; by default those of a tool that only reads.

    Raises:
        InvalidTool: the signature or an option cannot be offered to a model.

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
    make = partial(FunctionTool, name=name, asks=asks, reads_only=reads_only, effect=effect, parallel=parallel)
    make = partial(make, timeout=timeout, deferred=deferred, main_thread=main_thread)
    return make if function is None else make(function)


def as_tool(item: Tool | Callable[..., Any]) -> Tool:
    """Return a tool as it is, or make a function one. Raises `InvalidTool` for anything else."""
    if isinstance(item, Tool):
        return item
    if callable(item):
        return FunctionTool(item)
    raise InvalidTool(f"{item!r} is neither a tool nor a function")
