"""`read_tool_result`: read on in a result that was too long to be shown whole."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from mentra_nb.providers.base import ProviderToolSpec
from mentra_nb.tools.needed import READ_TOOL_RESULT, WholeResults, read_on
from mentra_nb.tools.paging import window
from mentra_nb.tools.schema import ToolError, schema_of, validated
from mentra_nb.tools.spec import ToolSpec
from mentra_nb.tools.tool import Tool, ToolContext, ToolOutput

END = "…[end of result]"


class _Place(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    tool_use_id: str = Field(description="The id of the call, as the notice in its result has it.")
    start_line: int = Field(1, ge=1, description="The line to begin with; the first is 1.")
    start_column: int = Field(1, ge=1, description="The character of that line to begin with, for a very long line.")


class ReadToolResult(Tool):
    """Return a window of a kept result, and how to call for the next one."""

    spec: ToolSpec = ToolSpec(
        wire=ProviderToolSpec(
            name=READ_TOOL_RESULT,
            description="Read on in the result of an earlier call that was too long to be shown whole.",
            input_schema=schema_of(_Place),
        ),
        reads_only=True,
        asks=False,
    )

    def validate(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return validated(_Place, arguments).model_dump()

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        id, line, column = arguments["tool_use_id"], arguments["start_line"], arguments["start_column"]
        text = await context.service(WholeResults).load(id)
        if text is None:
            raise ToolError(f"no result of a call '{id[:100]}' is kept; short ones are shown whole")
        part = window(text, line, column)
        if part.next is None:
            return ToolOutput(f"{part.text}\n{END}" if part.text else END)
        return ToolOutput(
            f"{part.text}\n…[lines {line} to {part.last_line} of {text.count(chr(10)) + 1}; "
            f"go on with {read_on(id, *part.next)}]"
        )
