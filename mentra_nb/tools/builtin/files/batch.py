"""The tool `files`: a batch of operations on files, all or nothing, each of which sees those before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio.to_thread

from mentra_nb.authorization import ToolAuthorizationPreview, ToolCapability
from mentra_nb.providers.base import ProviderToolSpec
from mentra_nb.tools.builtin.files import operations as o
from mentra_nb.tools.builtin.files.places import Place, in_folder
from mentra_nb.tools.builtin.files.planned import Named, PlannedTool
from mentra_nb.tools.schema import ToolError, schema_of, validated
from mentra_nb.tools.spec import ToolSpec
from mentra_nb.tools.tool import ToolContext, ToolOutput

if TYPE_CHECKING:
    from mentra_nb.effect.types import FileState
    from mentra_nb.tools.builtin.files.plan import Plan


def _schema() -> dict[str, Any]:
    """Return the schema of the arguments, without the keyword of OpenAPI that says how to tell operations apart."""
    schema = schema_of(o.Files)
    del schema["properties"]["operations"]["items"]["discriminator"]
    return schema


_WIRE = ProviderToolSpec(
    name="files",
    description="Read, list, search and change text files: one batch of operations, done as a whole or not at all.",
    input_schema=_schema(),
)
_LOOKING = ToolSpec(
    wire=_WIRE, capabilities=(ToolCapability.FILESYSTEM_READ,), reads_only=True, parallel=True, asks=False
)
_ACTIONS: dict[str, str] = {"read": "files_read", "list": "files_list", "search": "files_search"}


def _parsed(arguments: dict[str, Any]) -> o.Files:
    parsed = validated(o.Files, arguments)
    assert isinstance(parsed, o.Files)
    return parsed


class FilesTool(PlannedTool):
    """`files`: a batch of operations. One that only reads runs unasked by default, and beside other calls."""

    spec: ToolSpec = ToolSpec(
        wire=_WIRE, capabilities=(ToolCapability.FILESYSTEM_READ, ToolCapability.FILESYSTEM_WRITE)
    )

    def work_out(self, context: ToolContext, arguments: dict[str, Any]) -> Plan:
        from mentra_nb.tools.builtin.files.plan import plan

        return plan(context.working_directory, _parsed(arguments), self.places(context, arguments))

    def validate(self, arguments: dict[str, Any]) -> dict[str, Any]:
        parsed = _parsed(arguments)
        if not parsed.operations:
            raise ToolError("At least one file operation is required")
        return parsed.model_dump(by_alias=True, exclude_none=True)

    def is_parallel(self, arguments: dict[str, Any]) -> bool:
        try:
            return o.reads_only(_parsed(arguments).operations)
        except ToolError:
            return False

    def named(self, arguments: dict[str, Any]) -> list[Named]:
        parsed = _parsed(arguments)
        return [
            Named(
                in_folder(parsed.working_directory, path),
                "read" if isinstance(operation, o.READING) else "write",
                _ACTIONS.get(operation.op, "files_write"),
            )
            for operation in parsed.operations
            for path in operation.paths
        ]

    def preview(self, context: ToolContext, arguments: dict[str, Any]) -> ToolAuthorizationPreview:
        made = super().preview(context, arguments)
        if not self.is_parallel(arguments):
            return made
        names = ("capabilities", "side_effect_level", "durability", "execution_category", "approval_category")
        return made.model_copy(update={name: getattr(_LOOKING, name) for name in names})

    def structured_input(self, context: ToolContext, arguments: dict[str, Any]) -> Any:
        parsed = _parsed(arguments)
        rest = iter(self.places(context, arguments))
        described = {
            "kind": "files",
            "working_directory": str(context.working_directory),
            "operations": [_described(each, [next(rest) for _ in each.paths]) for each in parsed.operations],
        }
        if o.reads_only(parsed.operations):
            return described
        made = self.planned(context, arguments)
        described["changes"] = [
            {"path": each.path, "kind": each.kind, "before": _shape(each.before), "after": _shape(each.after)}
            for each in made.changes
        ]
        described["effect"] = made.digest
        return described

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        from mentra_nb.tools.builtin.files.applying import keep

        made = await self.decided(context, arguments)

        def sections() -> list[str]:
            return [section() for section in made.sections]

        texts = await anyio.to_thread.run_sync(sections, abandon_on_cancel=True)
        await keep(context, made.changes, made.content)
        for text in made.progress:
            context.progress(f"file_op: {text}")
        return ToolOutput("\n\n".join(texts))


def _described(operation: Any, places: list[Place]) -> dict[str, Any]:
    """Return an operation for a person to judge: resolved paths and numbers, no content."""
    made: dict[str, Any] = {"op": operation.op}
    keys = ("resolved_path",) if len(places) == 1 else ("from_resolved_path", "to_resolved_path")
    made.update({key: each.path for key, each in zip(keys, places, strict=True)})
    names = ("offset", "limit", "depth", "pattern", "replace_all", "expected_replacements", "position", "occurrence")
    made.update({name: getattr(operation, name) for name in names if getattr(operation, name, None) is not None})
    return made


def _shape(state: FileState | None) -> dict[str, Any] | None:
    if state is None:
        return None
    return {"type": state.type, "mode": state.mode, "bytes": state.size, "sha256": state.digest}
