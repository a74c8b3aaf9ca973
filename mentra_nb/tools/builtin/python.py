"""The tools `python` and `variables`, which work in the user's kernel. Only a notebook offers them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from pydantic import BaseModel, Field

from mentra_nb.authorization import CustomCapability, Subject
from mentra_nb.content import Image
from mentra_nb.permission.policy import PolicyViolation
from mentra_nb.providers.base import ProviderToolSpec
from mentra_nb.tools.schema import ToolError, schema_of, validated
from mentra_nb.tools.spec import ToolSpec
from mentra_nb.tools.tool import MainThread, Tool, ToolContext, ToolOutput

IN_KERNEL = CustomCapability(Custom="PythonInKernel")
FULL_ACCESS = (
    "Allowing this is full access: the code can do here all that you can, "
    "to your variables, files, keys and the network"
)


@dataclass(frozen=True)
class Ran:
    """What code did: `text` is for the model, as are the images of figures; `failed` says that it raised."""

    text: str
    images: tuple[Image, ...] = ()
    failed: bool = False
    details: dict[str, Any] = field(default_factory=dict)
    """What it did to names, for the record."""


class UserKernel(Protocol):
    """The user's kernel, as the tools need it."""

    def run(self, code: str, context: ToolContext) -> Ran:
        """Run code as a cell would, on this thread, which must be the cell's. An interrupt goes on to the turn.

        `context.changed` gets what it did to files, as the undo journal has it, and `context.so_far` what it did at all
        when it is interrupted.
        """
        ...

    def variables(self, names: Sequence[str]) -> str:
        """Return what the variables are, without the text of any value; all of them if `names` is empty."""
        ...

    def beyond_undo(self, code: str) -> list[str]:
        """Return what in the kernel could not be restored after this code has changed it, by kind."""
        ...


class _Python(BaseModel):
    code: str = Field(min_length=1, description="Python, as in a notebook cell. The value of its last line is shown.")


class PythonTool(Tool):
    """`python`: run code in the user's kernel, with the user's variables, on the thread of the cell."""

    spec: ToolSpec = ToolSpec(
        wire=ProviderToolSpec(
            name="python",
            description=(
                "Run Python in the user's notebook kernel, where the user's variables are and new ones stay. Returns "
                "what it prints, the value of the last line, and which variables changed. Figures are shown in the "
                "user's cell."
            ),
            input_schema=schema_of(_Python),
        ),
        capabilities=(IN_KERNEL,),
    )

    def __init__(self, kernel: UserKernel) -> None:
        self.kernel = kernel

    def validate(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return validated(_Python, arguments).model_dump()

    def subject(self, context: ToolContext, arguments: dict[str, Any]) -> Subject:
        return Subject.text(arguments["code"])

    def structured_input(self, context: ToolContext, arguments: dict[str, Any]) -> Any:
        return {"kind": "python", "warning": FULL_ACCESS, "beyond_undo": self.kernel.beyond_undo(arguments["code"])}

    def check_policy(self, context: ToolContext, arguments: dict[str, Any]) -> None:
        policy = context.policy
        if policy.read_only or policy.sandboxed_only or not policy.allow_shell_commands:
            raise PolicyViolation("python", "code in the kernel can do what the runtime policy forbids to commands")
        context.service(MainThread).check()

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        self.check_policy(context, arguments)
        if beyond := self.kernel.beyond_undo(arguments["code"]):
            context.progress(f"undo could not restore {', '.join(beyond)}")
        work = partial(self.kernel.run, arguments["code"], context)
        ran: Ran = await context.service(MainThread).run(work)
        if ran.failed:
            failure = ToolError(ran.text)
            failure.details = ran.details
            raise failure
        return ToolOutput(ran.text, images=ran.images, details=ran.details)


class _Variables(BaseModel):
    names: list[str] = Field([], description="Only these; by default all.")


class VariablesTool(Tool):
    """`variables`: what the user's variables are: names, types, shapes, columns, missing values. No value's text."""

    spec: ToolSpec = ToolSpec(
        wire=ProviderToolSpec(
            name="variables",
            description="List the variables of the user's notebook: types, shapes, columns with dtypes, null counts.",
            input_schema=schema_of(_Variables),
        ),
        reads_only=True,
        asks=False,
    )

    def __init__(self, kernel: UserKernel) -> None:
        self.kernel = kernel

    def validate(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return validated(_Variables, arguments).model_dump()

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        work = partial(self.kernel.variables, arguments["names"])
        return ToolOutput(await context.service(MainThread).run(work))
