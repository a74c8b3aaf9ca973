"""`task`: the model gives a task to a subagent, and reads its answer.

Several calls of one answer run at the same time. What a subagent does is decided about as what its parent does, so
nobody is asked about the call itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from mentra_nb.authorization import Subject, ToolCapability
from mentra_nb.errors import MentraError
from mentra_nb.providers.base import ProviderToolSpec
from mentra_nb.tools.schema import ToolError, schema_of, validated
from mentra_nb.tools.spec import ToolSpec
from mentra_nb.tools.template import AgentTemplate
from mentra_nb.tools.tool import Tool, ToolContext, ToolOutput

NO_SUMMARY = "(no summary)"


class _Task(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    prompt: str = Field(description="The task, with all that is needed: a subagent knows nothing of this conversation.")
    agent: str | SkipJsonSchema[None] = Field(None, description="The kind of subagent; leave it out for one like you.")


class TaskTool(Tool):
    """Gives a task to a subagent with a conversation of its own."""

    def __init__(self, templates: Iterable[AgentTemplate] = ()) -> None:
        self.templates: dict[str, AgentTemplate] = {template.name: template for template in templates}
        lines = [f"- {each.name}: {each.description}" for each in self.templates.values()]
        kinds = "\n".join(["", "Kinds of subagents:", *lines]) if lines else ""
        self.spec: ToolSpec = ToolSpec(
            wire=ProviderToolSpec(
                name="task",
                description="Give a task to a subagent and return its answer. It works by itself, with tools, and ends "
                f"with its answer. Several tasks called for in one answer run at the same time.{kinds}",
                input_schema=schema_of(_Task),
            ),
            capabilities=(ToolCapability.DELEGATION,),
            parallel=True,
            asks=False,
        )

    def validate(self, arguments: dict[str, Any]) -> dict[str, Any]:
        given = validated(_Task, arguments).model_dump(exclude_none=True)
        if not given["prompt"].strip():
            raise ToolError("Task prompt must not be empty")
        if (name := given.get("agent")) is not None and name not in self.templates:
            known = ", ".join(self.templates) or "none: leave `agent` out"
            raise ToolError(f"there is no kind of subagent '{name[:100]}'; there are: {known}")
        return given

    def subject(self, context: ToolContext, arguments: dict[str, Any]) -> Subject:
        return Subject.text(": ".join(filter(None, (arguments.get("agent"), arguments["prompt"]))))

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        template = self.templates.get(arguments.get("agent", ""))
        try:
            answer = await context.spawn_subagent(arguments["prompt"], template)
        except MentraError as error:
            raise ToolError(f"Subagent failed: {error}") from error
        return ToolOutput(answer.strip() or NO_SUMMARY)


def subagent_tools(templates: Iterable[AgentTemplate] = ()) -> list[Tool]:
    """Return the tool with which a model gives tasks to subagents, for `Runtime(tools=…)` or `Chat(tools=…)`.

    Args:
        templates: Kinds of subagents that it may ask for.

    Example:
        >>> [tool.spec.name for tool in mn.subagent_tools()]
        ['task']
    """
    return [TaskTool(templates)]
