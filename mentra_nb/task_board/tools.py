"""The task tools: `task_create`, `task_claim`, `task_update`, `task_list`, `task_get`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.json_schema import SkipJsonSchema

from mentra_nb.authorization import Subject, ToolCapability
from mentra_nb.providers.base import ProviderToolSpec
from mentra_nb.task_board.board import Board, Listing, Updated, listing
from mentra_nb.task_board.keeper import TaskKeeper
from mentra_nb.tools.schema import schema_of, validated
from mentra_nb.tools.spec import ToolSpec
from mentra_nb.tools.tool import Tool, ToolContext, ToolOutput

MAX_SUBJECT = 300
"""Characters of a subject, an owner or a folder."""
MAX_DESCRIPTION = 8_000


class _Input(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", alias_generator=to_camel)


class _Nothing(_Input):
    pass


class _Create(_Input):
    subject: str = Field(max_length=MAX_SUBJECT, description="What is to be done, in one line.")
    description: str = Field("", max_length=MAX_DESCRIPTION, description="What one needs to know to do it.")
    owner: str = Field("", max_length=MAX_SUBJECT, description="The name of the agent that does it.")
    working_directory: str | None = Field(None, max_length=MAX_SUBJECT, description="The folder to do it in.")
    blocked_by: list[int] = Field([], description="The ids of the tasks that must be completed before it.")


class _Which(_Input):
    task_id: int


class _Claim(_Input):
    task_id: int | SkipJsonSchema[None] = Field(None, description="Leave it out for the first task that is ready.")


class _Update(_Input):
    task_id: int
    subject: str | SkipJsonSchema[None] = Field(None, max_length=MAX_SUBJECT)
    description: str | SkipJsonSchema[None] = Field(None, max_length=MAX_DESCRIPTION)
    owner: str | SkipJsonSchema[None] = Field(None, max_length=MAX_SUBJECT)
    working_directory: str | None = Field(None, max_length=MAX_SUBJECT, description="null for none.")
    status: Literal["pending", "in_progress", "completed"] | SkipJsonSchema[None] = None
    add_blocked_by: list[int] = []
    remove_blocked_by: list[int] = []
    add_blocks: list[int] = []
    remove_blocks: list[int] = []


_DEPENDENCIES = ("add_blocked_by", "remove_blocked_by", "add_blocks", "remove_blocks")


class _TaskTool(Tool):
    """A tool of the task board. Its calls change nothing but the board, so nobody is asked about them."""

    arguments: ClassVar[type[_Input]]
    companion: ClassVar[type[Any] | None] = TaskKeeper

    def validate(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return validated(self.arguments, arguments).model_dump(by_alias=True, exclude_unset=True)

    def subject(self, context: ToolContext, arguments: dict[str, Any]) -> Subject:
        return Subject.text(str(arguments.get("subject") or arguments.get("taskId") or ""))

    def read(self, arguments: dict[str, Any]) -> Any:
        """Return the arguments as an object."""
        return self.arguments.model_validate(arguments)


def _spec(name: str, description: str, arguments: type[_Input], *, reads_only: bool = False) -> ToolSpec:
    wire = ProviderToolSpec(name=name, description=description, input_schema=schema_of(arguments))
    return ToolSpec(wire=wire, capabilities=(ToolCapability.TASK_MUTATION,), reads_only=reads_only, asks=False)


class TaskCreateTool(_TaskTool):
    """Adds a task to the board."""

    arguments: ClassVar[type[_Input]] = _Create
    spec: ToolSpec = _spec(
        "task_create",
        "Add a task to the task board of this project. Use the board for work of several steps.",
        _Create,
    )

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        given = self.read(arguments).model_dump()
        given["working_directory"] = _folder(given["working_directory"])
        return _told(await context.service(TaskKeeper).change(lambda board: board.create(**given)))


class TaskClaimTool(_TaskTool):
    """Makes the caller the owner of a task."""

    arguments: ClassVar[type[_Input]] = _Claim
    spec: ToolSpec = _spec("task_claim", "Become the owner of a task that is ready and has no owner.", _Claim)

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        task_id = self.read(arguments).task_id
        return _told(await context.service(TaskKeeper).change(lambda board: board.claim(task_id)))


class TaskUpdateTool(_TaskTool):
    """Changes a task."""

    arguments: ClassVar[type[_Input]] = _Update
    spec: ToolSpec = _spec(
        "task_update",
        "Change a task: its status (in_progress when you begin it, completed when it is done), its text or what it "
        "waits for. Returns the tasks that are free now (unblocked) or must wait again (reblocked).",
        _Update,
    )

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        given = self.read(arguments)
        fields = given.model_dump(exclude_unset=True, exclude={"task_id", *_DEPENDENCIES})
        fields = {name: value for name, value in fields.items() if value is not None or name == "working_directory"}
        if "working_directory" in fields:
            fields["working_directory"] = _folder(fields["working_directory"])
        dependencies = {name: getattr(given, name) for name in _DEPENDENCIES}

        def edit(board: Board) -> Updated:
            return board.update(given.task_id, fields, **dependencies)

        return _told(await context.service(TaskKeeper).change(edit))


class TaskListTool(_TaskTool):
    """Lists the tasks."""

    arguments: ClassVar[type[_Input]] = _Nothing
    spec: ToolSpec = _spec("task_list", "List the tasks of the task board.", _Nothing, reads_only=True)

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        return _told(listing(await context.service(TaskKeeper).tasks()))


class TaskGetTool(_TaskTool):
    """Shows one task."""

    arguments: ClassVar[type[_Input]] = _Which
    spec: ToolSpec = _spec("task_get", "Read one task.", _Which, reads_only=True)

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        task_id = self.read(arguments).task_id
        return _told(await context.service(TaskKeeper).look(lambda board: board.get(task_id)))


def task_tools() -> list[Tool]:
    """Return the tools with which a model keeps a board of tasks, for `Runtime(tools=…)` or `Chat(tools=…)`.

    Example:
        >>> [tool.spec.name for tool in mn.task_tools()]
        ['task_create', 'task_claim', 'task_update', 'task_list', 'task_get']
    """
    return [TaskCreateTool(), TaskClaimTool(), TaskUpdateTool(), TaskListTool(), TaskGetTool()]


def _folder(text: str | None) -> str | None:
    return text if text and text.strip() else None


def _told(value: Any) -> ToolOutput:
    """Return what a model reads of tasks: JSON with the names of the original."""
    return ToolOutput(json.dumps(_plain(value), ensure_ascii=False, indent=1))


def _plain(value: Any) -> Any:
    if isinstance(value, Listing | Updated):
        return {to_camel(name): _plain(each) for name, each in value._asdict().items()}
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    return [_plain(each) for each in value] if isinstance(value, Iterable) and not isinstance(value, str) else value
