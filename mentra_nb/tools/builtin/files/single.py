"""The tools `read` and `write`: text files within the policy's roots. Symlinks are resolved; I/O runs off the loop."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from pydantic import BaseModel, Field

from mentra_nb.authorization import ToolCapability
from mentra_nb.permission.protected import Access
from mentra_nb.providers.base import ProviderToolSpec
from mentra_nb.tools.builtin.files.planned import Named, PlacedTool, PlannedTool
from mentra_nb.tools.schema import ToolError, schema_of, validated
from mentra_nb.tools.spec import ToolSpec
from mentra_nb.tools.tool import ToolContext, ToolOutput

if TYPE_CHECKING:
    from mentra_nb.tools.builtin.files.plan import Plan


class _Read(BaseModel):
    path: str = Field(description="The file, relative to the working directory or absolute.")
    offset: int = Field(1, ge=1, description="First line to read, counted from 1.")
    limit: int = Field(2000, ge=0, description="How many lines to read at most.")


class _Write(BaseModel):
    path: str = Field(description="The file, relative to the working directory or absolute.")
    content: str = Field(description="The whole new content of the file.")


MAX_COUNTED = 1 << 20
"""Bytes of the largest file whose content is compared and counted."""


class _FileTool(PlacedTool):
    """A tool for one file, which its argument `path` names."""

    access: Access

    def operation(self, target: Path, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return what the call would do to the file, for the preview."""
        raise NotImplementedError

    def named(self, arguments: dict[str, Any]) -> list[Named]:
        return [Named(arguments["path"], self.access, f"files_{self.access}")]

    def structured_input(self, context: ToolContext, arguments: dict[str, Any]) -> Any:
        [at] = self.places(context, arguments)
        return {
            "kind": "files",
            "working_directory": str(context.working_directory),
            "operations": [self.operation(at.target, arguments)],
        }


class ReadTool(_FileTool):
    """`read`: lines of a text file. Runs unasked by default, within the policy's read roots."""

    access: Access = "read"
    spec: ToolSpec = ToolSpec(
        wire=ProviderToolSpec(
            name="read", description="Read a text file. Lines come numbered.", input_schema=schema_of(_Read)
        ),
        capabilities=(ToolCapability.FILESYSTEM_READ,),
        reads_only=True,
        parallel=True,
        asks=False,
    )

    def validate(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return validated(_Read, arguments).model_dump()

    def operation(self, target: Path, arguments: dict[str, Any]) -> dict[str, Any]:
        return {
            "op": "read",
            "resolved_path": str(target),
            "offset": arguments["offset"],
            "limit": arguments["limit"],
        }

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        [at] = self.places(context, arguments)
        text = await anyio.to_thread.run_sync(
            _read_lines, at.path, arguments["path"], arguments["offset"], arguments["limit"], abandon_on_cancel=True
        )
        return ToolOutput(text)


def _read_lines(target: str, path: str, offset: int, limit: int) -> str:
    from mentra_nb.tools.builtin.files.looking import lines_of
    from mentra_nb.tools.builtin.files.overlay import Overlay
    from mentra_nb.tools.builtin.files.plan import check_file

    files = Overlay()
    try:
        check_file(files.type(target), path)
        with files.open(target) as file:
            return lines_of(file, path, offset, limit)
    except OSError as error:
        raise ToolError(f"'{path}' cannot be read: {error.strerror}") from error


class WriteTool(_FileTool, PlannedTool):
    """`write`: create or replace a file as a whole, atomically, keeping its mode, encoding and line ends."""

    access: Access = "write"
    spec: ToolSpec = ToolSpec(
        wire=ProviderToolSpec(
            name="write", description="Create or overwrite a text file.", input_schema=schema_of(_Write)
        ),
        capabilities=(ToolCapability.FILESYSTEM_WRITE,),
        effect="idempotent",
    )

    def validate(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return validated(_Write, arguments).model_dump()

    def operation(self, target: Path, arguments: dict[str, Any]) -> dict[str, Any]:
        if not target.exists():
            return {"op": "create", "resolved_path": str(target)}
        return {"op": "set", "resolved_path": str(target), "replaces": replaced(target)[0]}

    def structured_input(self, context: ToolContext, arguments: dict[str, Any]) -> Any:
        described = super().structured_input(context, arguments)
        self.planned(context, arguments)
        return described

    def work_out(self, context: ToolContext, arguments: dict[str, Any]) -> Plan:
        from mentra_nb.tools.builtin.files.operations import Create, Files, Set
        from mentra_nb.tools.builtin.files.overlay import Overlay
        from mentra_nb.tools.builtin.files.plan import plan

        path, content = arguments["path"], arguments["content"]
        [at] = self.places(context, arguments)
        kind = Overlay().type(at.path)
        if kind == "folder" or path.endswith("/"):
            raise ToolError(f"'{path}' is a folder")
        operation: Create | Set = Create(op="create", path=path, content=content)
        if kind is not None:
            operation = Set(op="set", path=path, content=content)
        return plan(context.working_directory, Files(operations=[operation], workingDirectory=None), [at])

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        from mentra_nb.tools.builtin.files.applying import keep

        made = await self.decided(context, arguments)
        await keep(context, made.changes, made.content)
        [at] = made.places
        size = made.files.size(at.path)
        return ToolOutput(f"Wrote {size} byte(s) to {at.shown}")


def replaced(target: Path) -> tuple[dict[str, Any], bytes | None]:
    """Return what identifies the content of a file, and the content.

    These are its bytes, lines and SHA-256; for a file over `MAX_COUNTED` bytes, which has no content here, its bytes,
    the time of its last change, and the time of the last change that the system noted, which nobody can set.
    """
    from mentra_nb.effect.handles import parent

    try:
        with parent(str(target)) as (folder, name):
            found = folder.stat(name)
            by_time = {"bytes": found.st_size, "modified_ns": found.st_mtime_ns, "changed_ns": found.st_ctime_ns}
            if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_COUNTED:
                return by_time, None
            with folder.open(name) as file:
                raw = file.read(MAX_COUNTED + 1) or b""
    except OSError:
        return {}, None
    if len(raw) > MAX_COUNTED:  # it grew, or its size is not known, as in `/proc`
        return by_time, None
    lines = raw.count(b"\n") + (not raw.endswith(b"\n") and bool(raw))
    return {"bytes": len(raw), "lines": lines, "sha256": hashlib.sha256(raw).hexdigest()}, raw
