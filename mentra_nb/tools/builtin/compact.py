"""`compact`: have the conversation shortened before the next answer."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from mentra_nb.authorization import ToolCapability
from mentra_nb.providers.base import ProviderToolSpec
from mentra_nb.tools.needed import COMPACT, Compaction
from mentra_nb.tools.schema import schema_of, validated
from mentra_nb.tools.spec import ToolSpec
from mentra_nb.tools.tool import Tool, ToolContext, ToolOutput

ASKED = "The conversation so far becomes a summary before your next answer. All of it stays stored."


class _Nothing(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


class Compact(Tool):
    """Ask for a summary in place of the conversation so far."""

    spec: ToolSpec = ToolSpec(
        wire=ProviderToolSpec(
            name=COMPACT,
            description="Replace the conversation so far by a summary, to have room for what comes next. "
            "Use it between two parts of a long task.",
            input_schema=schema_of(_Nothing),
        ),
        capabilities=(ToolCapability.CONTEXT_COMPACTION,),
        reads_only=True,
        asks=False,
    )

    def validate(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return validated(_Nothing, arguments).model_dump()

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        context.service(Compaction).ask()
        return ToolOutput(ASKED)
