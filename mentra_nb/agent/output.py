"""A final answer of a given type: the tool that receives it, and the settings of the turn that has this tool."""

from __future__ import annotations

import json
import re
from collections import ChainMap
from dataclasses import replace
from hashlib import sha256
from typing import Any, TypedDict

from pydantic import TypeAdapter, ValidationError, create_model

from mentra_nb.agent.config import AgentConfig
from mentra_nb.agent.environment import AgentEnvironment
from mentra_nb.errors import ConfigurationError, InvalidOutput
from mentra_nb.providers.base import ProviderToolSpec, ToolChoice
from mentra_nb.tools.hints import readable
from mentra_nb.tools.schema import ToolError, Untitled, fit
from mentra_nb.tools.spec import ANSWERS, ToolSpec
from mentra_nb.tools.tool import Tool, ToolContext, ToolOutput


class OutputOptions(TypedDict, total=False):
    """How the model is asked for a value. Every key is optional.

    Example:
        >>> how = mn.OutputOptions(name="invoice", keeps_tools=True)
    """

    name: str | None
    """What the value is called; by default the name of its type."""
    description: str | None
    """What the value is."""
    keeps_tools: bool
    """Whether the model may use its other tools first."""


DESCRIPTION = "Give the final answer. Call this once, with all of it."


class OutputType:
    """A type as a model is asked for a value of it: the schema of an object, and how an answer is read."""

    def __init__(self, output: Any) -> None:
        """Take a type as pydantic understands it. Raises `ConfigurationError` if no JSON Schema can describe it."""
        self.name: str = _named(output)
        try:
            self._type = TypeAdapter[Any](readable(output))
            self.schema: dict[str, Any] = self._type.json_schema(schema_generator=Untitled)
            self.is_wrapped: bool = self.schema.get("type") != "object"
            """Whether the value is the property `value` of the object that is asked for."""
            if self.is_wrapped:  # arguments must be an object, so the value becomes a property of one
                self._type = TypeAdapter(create_model("Output", value=(readable(output), ...)))
                self.schema = self._type.json_schema(schema_generator=Untitled)
        except Exception as error:
            why = str(error).partition("\n")[0]
            raise ConfigurationError(f"no JSON Schema can describe an output of {self.name}: {why}") from error
        self.schema.pop("title", None)

    def value(self, given: dict[str, Any]) -> Any:
        """Return the value that an object describes. Raises `InvalidOutput` if it does not fit the type."""
        try:
            parsed: Any = fit(lambda given: self._type.validate_json(json.dumps(given)), given)[0]
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            problem = f"{where}: {first['msg']}" if where else first["msg"]
            said = json.dumps(given.get("value") if self.is_wrapped else given, ensure_ascii=False)
            raise InvalidOutput(self.name, problem, said) from error
        return parsed.value if self.is_wrapped else parsed


class OutputTool(Tool):
    """Its arguments are the answer; the first call that fits ends the turn, and so does the second that does not.

    Without `keeps_tools` it is the only tool offered in its turn, and the model must call it.
    """

    def __init__(
        self, output: Any, name: str | None = None, description: str | None = None, *, keeps_tools: bool = False
    ) -> None:
        self.output = output
        self.keeps_tools = keeps_tools
        self.given: dict[str, Any] | None = None
        """The arguments of the last call."""
        self._type = OutputType(output)
        about = description or DESCRIPTION
        named = _tool_name(name or _named(output), about, self._type.schema)
        wire = ProviderToolSpec(name=named, description=about, input_schema=self._type.schema)
        self.spec: ToolSpec = ToolSpec(wire=wire, effect="none")

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        is_repair, self.given = self.given is not None, arguments
        try:
            self.value()
        except InvalidOutput as error:
            if not is_repair:
                raise ToolError(f"{error}; give the whole answer again") from None
        return ToolOutput("received", terminate=True)

    def value(self, said: str = "") -> Any:
        """Return the model's answer. `said` is what it said last.

        Raises:
            InvalidOutput: the answer does not fit the type, or the model did not call the tool.
        """
        if self.given is None:
            raise InvalidOutput(_named(self.output), "it answered in words", said)
        return self._type.value(self.given)

    # ---- the turn it is for -----------------------------------------------------------------------------------

    def environment(self, environment: AgentEnvironment) -> AgentEnvironment:
        """Return the agent's environment with this tool added."""
        return replace(environment, tools=ChainMap({self.spec.name: self}, environment.tools))  # type: ignore[arg-type]

    def config(self, config: AgentConfig) -> AgentConfig:
        """Return the agent's settings, changed so that the model calls this tool."""
        name = self.spec.name
        change: dict[str, Any] = {"tool_choice": ToolChoice(), "response_format": None}
        if not self.keeps_tools:  # some providers allow no reasoning when a tool is forced
            forced = ToolChoice("tool", name)
            change |= {
                "tools": (name,),
                "loaded_tools": (),
                "tool_choice": forced,
                "reasoning_effort": None,
                "reasoning_summary": None,
            }
        elif config.tools is not None:
            change["tools"] = (*config.tools, name)
        return config.model_copy(update=change)


def _named(output: Any) -> str:
    return output.__name__ if isinstance(output, type) else str(output).replace("typing.", "")


def _tool_name(name: str, description: str, schema: dict[str, Any]) -> str:
    """Return a tool name of at most 64 characters: the same for the same answer, so that its requests are the same."""
    about = re.sub(r"[^A-Za-z0-9]+", "_", name)[:14].strip("_") or "output"
    digest = sha256(json.dumps([name, description, schema], sort_keys=True).encode()).hexdigest()
    return f"{ANSWERS}{about}_{digest[:16]}_{digest[16:32]}"
