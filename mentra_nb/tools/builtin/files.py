"""The tools `read` and `write`: text files within the policy's roots. Symlinks are resolved; I/O runs off the loop."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

import anyio.to_thread
from pydantic import BaseModel, Field

from mentra_nb.authorization import Subject, ToolCapability
from mentra_nb.ids import uuid7
from mentra_nb.permission.policy import resolved
from mentra_nb.providers.base import ProviderToolSpec
from mentra_nb.tools.schema import ToolError, schema_of, validated
from mentra_nb.tools.spec import ToolSpec
from mentra_nb.tools.tool import Tool, ToolContext, ToolOutput

MAX_READ_BYTES = 1 << 20


class _Read(BaseModel):
    path: str = Field(description="The file, relative to the working directory or absolute.")
    offset: int = Field(1, ge=1, description="First line to read, counted from 1.")
    limit: int = Field(2000, ge=0, description="How many lines to read at most.")


class _Write(BaseModel):
    path: str = Field(description="The file, relative to the working directory or absolute.")
    content: str = Field(description="The whole new content of the file.")


def _shown(context: ToolContext, path: Path) -> str:
    base = context.working_directory.resolve()
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path)


MAX_COUNTED = 1 << 20
"""Bytes of the largest file whose content is compared and counted."""


class _FileTool(Tool):
    """A tool for one file, which its argument `path` names."""

    def operation(self, target: Path, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return what the call would do to the file, for the preview."""
        raise NotImplementedError

    def subject(self, context: ToolContext, arguments: dict[str, Any]) -> Subject:
        target = resolved(context.working_directory, arguments["path"])
        return Subject.path(_shown(context, target), absolute=(target.as_posix(),))

    def structured_input(self, context: ToolContext, arguments: dict[str, Any]) -> Any:
        target = resolved(context.working_directory, arguments["path"])
        return {
            "kind": "files",
            "working_directory": str(context.working_directory),
            "operations": [self.operation(target, arguments)],
        }


class ReadTool(_FileTool):
    """`read`: lines of a text file. Runs unasked by default, within the policy's read roots."""

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

    def check_policy(self, context: ToolContext, arguments: dict[str, Any]) -> None:
        context.policy.readable(context.working_directory, arguments["path"])

    def operation(self, target: Path, arguments: dict[str, Any]) -> dict[str, Any]:
        return {
            "op": "read",
            "resolved_path": str(target),
            "offset": arguments["offset"],
            "limit": arguments["limit"],
        }

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        target = context.policy.readable(context.working_directory, arguments["path"])
        text = await anyio.to_thread.run_sync(
            _read_lines, target, arguments["path"], arguments["offset"], arguments["limit"], abandon_on_cancel=True
        )
        return ToolOutput(text)


def _read_lines(target: Path, path: str, offset: int, limit: int) -> str:
    """Return numbered lines, at most `MAX_READ_BYTES` characters of them. Memory use does not depend on the file."""
    if not target.is_file():
        raise ToolError(f"'{path}' is not a file" if target.exists() else f"'{path}' does not exist")
    lines, size, number = [], 0, 1
    try:
        with target.open(encoding="utf-8", newline=None) as file:
            while number < offset + limit and (piece := file.readline(MAX_READ_BYTES)):
                is_whole = piece.endswith("\n")
                if number >= offset:
                    size += len(piece)
                    if size > MAX_READ_BYTES or (not is_whole and len(piece) == MAX_READ_BYTES):
                        lines.append(f"L{number}: {piece[: max(0, MAX_READ_BYTES - size + len(piece))]}")
                        lines.append(f"[cut: only {MAX_READ_BYTES} characters are shown; read on with offset]")
                        break
                    lines.append(f"L{number}: {piece.removesuffix(chr(10))}")
                number += is_whole
    except UnicodeDecodeError:
        raise ToolError(f"'{path}' is not valid UTF-8 text") from None
    except OSError as error:
        raise ToolError(f"'{path}' cannot be read: {error.strerror}") from error
    return "\n".join(lines) or "(no lines)"


class WriteTool(_FileTool):
    """`write`: create or replace a file as a whole, atomically, keeping its mode."""

    spec: ToolSpec = ToolSpec(
        wire=ProviderToolSpec(
            name="write", description="Create or overwrite a text file.", input_schema=schema_of(_Write)
        ),
        capabilities=(ToolCapability.FILESYSTEM_WRITE,),
        effect="idempotent",
    )

    def validate(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return validated(_Write, arguments).model_dump()

    def check_policy(self, context: ToolContext, arguments: dict[str, Any]) -> None:
        context.policy.writable(context.working_directory, arguments["path"])

    def operation(self, target: Path, arguments: dict[str, Any]) -> dict[str, Any]:
        if not target.exists():
            return {"op": "create", "resolved_path": str(target)}
        return {"op": "set", "resolved_path": str(target), "replaces": replaced(target)[0]}

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        target = context.policy.writable(context.working_directory, arguments["path"])
        raw = arguments["content"].encode("utf-8")
        # not abandoned on a stop: a write is short and ends whole
        await anyio.to_thread.run_sync(_replace, target, arguments["path"], raw)
        return ToolOutput(f"Wrote {len(raw)} byte(s) to {_shown(context, target)}")


def replaced(target: Path) -> tuple[dict[str, Any], bytes | None]:
    """Return what identifies the content of a file, and the content.

    These are its bytes, lines and SHA-256; for a file over `MAX_COUNTED` bytes, which has no content here, its bytes,
    the time of its last change, and the time of the last change that the system noted, which nobody can set.
    """
    try:
        found = target.stat()
        by_time = {"bytes": found.st_size, "modified_ns": found.st_mtime_ns, "changed_ns": found.st_ctime_ns}
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_COUNTED:
            return by_time, None
        with open(target, "rb", opener=_without_waiting) as file:
            raw = file.read(MAX_COUNTED + 1) or b""
    except OSError:
        return {}, None
    if len(raw) > MAX_COUNTED:  # it grew, or its size is not known, as in `/proc`
        return by_time, None
    lines = raw.count(b"\n") + (not raw.endswith(b"\n") and bool(raw))
    return {"bytes": len(raw), "lines": lines, "sha256": hashlib.sha256(raw).hexdigest()}, raw


def _without_waiting(path: str, flags: int) -> int:
    """Open a file so that a pipe put in its place does not wait for a writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _replace(target: Path, path: str, raw: bytes) -> None:
    if target.is_dir():
        raise ToolError(f"'{path}' is a folder")
    new = target.with_name(f".{target.name}.{uuid7()}.mentra-tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with new.open("xb") as file:
                file.write(raw)
            if target.exists():
                new.chmod(target.stat().st_mode & 0o7777)
            new.replace(target)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ToolError(f"'{path}' cannot be written: {error.strerror}") from error
