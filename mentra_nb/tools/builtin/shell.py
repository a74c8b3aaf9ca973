"""The tool `shell`. The policy must allow commands at all; a rule or a person must allow the line."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from mentra_nb.authorization import Subject, ToolCapability
from mentra_nb.permission.policy import PolicyViolation
from mentra_nb.permission.validation import Verdict, judged
from mentra_nb.providers.base import ProviderToolSpec
from mentra_nb.sandbox.executor import LEFT_OUT, CommandRequest, ExecOutput, LocalExecutor
from mentra_nb.tools.clipping import MAX_RESULT_BYTES, MAX_RESULT_LINES, as_printed, clipped
from mentra_nb.tools.schema import ToolError, schema_of, validated
from mentra_nb.tools.spec import ToolSpec
from mentra_nb.tools.tool import Tool, ToolContext, ToolOutput, WorkFolder
from mentra_nb.words import counted

_TEXT_BYTES = MAX_RESULT_BYTES - 1024
_TEXT_LINES = MAX_RESULT_LINES - 10
"""Room for the two streams of a result beside its notices."""


class Command(BaseModel):
    """The arguments of a command that runs by itself."""

    model_config: ClassVar[ConfigDict] = ConfigDict(populate_by_name=True)

    command: str = Field(min_length=1, description="The command line, as for /bin/sh -c.")
    working_directory: str | SkipJsonSchema[None] = Field(
        None, alias="workingDirectory", description="Where to run it, if not in the working directory."
    )
    justification: str | SkipJsonSchema[None] = Field(
        None, description="Why it is needed, shown to the person who is asked."
    )


class _Shell(Command):
    timeout_ms: Annotated[int, Field(ge=0)] | SkipJsonSchema[None] = Field(
        None, alias="timeoutMs", description="Time limit in milliseconds; 0 for the usual one."
    )


class CommandTool(Tool):
    """What the tools have in common that run a command line: its rules, its policy and its preview."""

    arguments: type[Command]
    in_background: bool = False

    def validate(self, arguments: dict[str, Any]) -> dict[str, Any]:
        given = validated(self.arguments, arguments).model_dump()
        return {name: value for name, value in given.items() if value}  # empty is as good as not given

    def subject(self, context: ToolContext, arguments: dict[str, Any]) -> Subject:
        cwd, line = working_directory(context, arguments), arguments["command"]
        if cwd != context.working_directory.resolve():
            line = f"cd {shlex.quote(str(cwd))} && {line}"
        verdict = self._verdict(context, arguments)
        protected = (line,) if verdict is not None and verdict.outcome != "allow" else ()
        return Subject.shell(line).model_copy(update={"protected": protected})

    def _verdict(self, context: ToolContext, arguments: dict[str, Any]) -> Verdict | None:
        """Return what the line seems to be for, if the policy wants to know."""
        policy = context.policy
        if policy.shell_validation == "off":
            return None
        return judged(arguments["command"], context.working_directory, read_only=policy.read_only)

    def structured_input(self, context: ToolContext, arguments: dict[str, Any]) -> Any:
        verdict = self._verdict(context, arguments)
        validation = {} if verdict is None else {"mode": context.policy.shell_validation, **asdict(verdict)}
        return {
            "kind": "shell",
            "command": arguments["command"],
            "working_directory": str(working_directory(context, arguments)),
            "timeout_ms": arguments.get("timeout_ms"),
            "justification": arguments.get("justification"),
            "background": self.in_background,
            **({"validation": validation} if validation else {}),
        }

    def check_policy(self, context: ToolContext, arguments: dict[str, Any]) -> None:
        cwd = working_directory(context, arguments)
        if self.in_background:
            context.policy.check_background(context.working_directory, cwd)
        else:
            context.policy.check_command(context.working_directory, cwd)
        context.policy.check_programs(arguments["command"])
        verdict = self._verdict(context, arguments)
        if verdict is not None and verdict.outcome == "deny" and context.policy.shell_validation == "enforce":
            action = "background_shell_validation" if self.in_background else "shell_validation"
            raise PolicyViolation(action, verdict.reason or "it is refused")
        if not cwd.is_dir():
            raise ToolError(f"'{cwd}' is not a folder")


class ShellTool(CommandTool):
    """`shell`: run a command line and return what it wrote, with its exit status if that was not 0."""

    arguments: type[Command] = _Shell
    spec: ToolSpec = ToolSpec(
        wire=ProviderToolSpec(
            name="shell",
            description="Run a shell command and return its output.",
            input_schema=schema_of(_Shell),
        ),
        capabilities=(ToolCapability.PROCESS_EXEC, ToolCapability.FILESYSTEM_WRITE),
    )
    acts_by_command = True

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        cwd = working_directory(context, arguments)
        self.check_policy(context, arguments)
        if context.policy.sandboxed_only and isinstance(context.executor, LocalExecutor):
            raise PolicyViolation("shell_command", "the policy has commands run in the sandbox only")
        requested = arguments.get("timeout_ms")
        request = CommandRequest(
            command=arguments["command"],
            cwd=cwd,
            timeout=context.policy.command_timeout(requested / 1000 if requested else None),
            env=context.policy.environment(),
            max_output_bytes_per_stream=context.policy.max_output_bytes_per_stream,
        )
        output = await context.executor.run(request, context.progress)
        text = report(output, request.timeout)
        if not output.success:
            raise ToolError(text)
        return ToolOutput(text)


def working_directory(context: ToolContext, arguments: dict[str, Any]) -> Path:
    """Return the folder that a command runs in."""
    chosen = arguments.get("working_directory")
    if not chosen and (own := context.services.get(WorkFolder)) is not None:
        chosen = own.find()
    return (context.working_directory / (chosen or ".")).resolve()


def report(output: ExecOutput, timeout: float) -> str:
    """Return both streams, each with its beginning and end, then the notices; all within the limits of a result."""
    streams = {
        "stdout": (as_printed(output.stdout).rstrip("\n"), output.stdout_bytes, output.stdout_lines),
        "stderr": (as_printed(output.stderr).rstrip("\n"), output.stderr_bytes, output.stderr_lines),
    }
    truncated = {"stdout": output.stdout_truncated, "stderr": output.stderr_truncated}
    texts = _within_limits([text for text, _, _ in streams.values()])
    parts = [text for text in texts if text.strip()]
    for (name, (whole, size, lines)), text in zip(streams.items(), texts, strict=True):
        if truncated[name] or text != whole:
            parts.append(
                f"[{name} truncated: of {counted(size, 'byte')}, {counted(lines, 'line')}, the middle is left out]"
            )
    if output.left_running:
        parts.append("[what it left running in the background was killed when it returned]")
    if output.timed_out:
        parts.append(f"[timed out after {timeout:g}s and was killed]")
    elif output.ending:
        parts.append(f"[{output.ending}]")
    return "\n".join(parts) or "(no output)"


def _within_limits(texts: list[str]) -> list[str]:
    """Return both texts cut so that they fit into one result: each may have half of it, and what the other leaves."""
    sizes = [len(text.encode("utf-8", "replace")) for text in texts]
    counts = [text.count("\n") + 1 for text in texts]
    made = []
    for own, other in ((0, 1), (1, 0)):
        room = max(_TEXT_BYTES // 2, _TEXT_BYTES - sizes[other])
        lines = max(_TEXT_LINES // 2, _TEXT_LINES - counts[other])
        made.append(clipped(texts[own], room, lines, LEFT_OUT))
    return made
