"""`ask_user`: the model asks the person a question, with choices or for a free text.

Its call is the question: a card as for any other, with a deadline, listed by `%mentra`, answered from any notebook,
also after the kernel has died. The answer is the decision about the call.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from mentra_nb.authorization import Subject
from mentra_nb.forms import MAX_TEXT, Form, FormField, Kind
from mentra_nb.providers.base import ProviderToolSpec
from mentra_nb.tools.schema import ToolError, schema_of, validated
from mentra_nb.tools.spec import ToolSpec
from mentra_nb.tools.tool import Tool, ToolContext, ToolOutput

MAX_QUESTION = 4_000
"""Characters of a question."""
MAX_CHOICES = 20
_ANSWER = "answer"


class _Ask(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    question: str = Field(min_length=1, max_length=MAX_QUESTION, description="What you want to know, in plain words.")
    choices: list[str] | SkipJsonSchema[None] = Field(
        None, max_length=MAX_CHOICES, description="The answers to choose from. Leave it out for a free text."
    )
    several: bool = Field(False, description="Whether more than one of the choices may be chosen.")


class AskUserTool(Tool):
    """Asks the person at the notebook. Where nobody can be asked the call is refused, and the model reads why."""

    spec: ToolSpec = ToolSpec(
        wire=ProviderToolSpec(
            name="ask_user",
            description=(
                "Ask the user a question that only they can answer, such as a preference or a decision. "
                "Do not use it for what the other tools can find out."
            ),
            input_schema=schema_of(_Ask),
        ),
        reads_only=True,
        asks=False,
    )

    def validate(self, arguments: dict[str, Any]) -> dict[str, Any]:
        fitting = validated(_Ask, arguments).model_dump(exclude_none=True)
        choices = fitting.get("choices")
        if choices is not None and (len(set(choices)) != len(choices) or not all(each.strip() for each in choices)):
            raise ToolError("invalid arguments: choices: each must be another text")
        return fitting

    def subject(self, context: ToolContext, arguments: dict[str, Any]) -> Subject:
        return Subject.text(arguments["question"])

    def form(self, context: ToolContext, arguments: dict[str, Any]) -> Form:
        choices = tuple((each, each) for each in arguments.get("choices") or ())
        kind: Kind = "text"
        if choices:
            kind = "choices" if arguments["several"] else "choice"
        field = FormField(name=_ANSWER, title="Your answer", kind=kind, required=True, choices=choices)
        return Form(who=context.agent_name, message=arguments["question"], fields=(field,))

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        if _ANSWER not in context.values:
            raise ToolError("nobody has answered")
        answer = context.values[_ANSWER]
        return ToolOutput("\n".join(answer) if isinstance(answer, list) else str(answer)[:MAX_TEXT])
