"""The tools `background_run`, `check_background` and `stop_background`: commands that outlive the turn.

How each ended reaches the model with a later request, through `agent.job_results`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio.to_thread
from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from mentra_nb.authorization import Subject, ToolCapability
from mentra_nb.background.jobs import Jobs, output_of
from mentra_nb.providers.base import ProviderToolSpec
from mentra_nb.sandbox.executor import LEFT_OUT, CommandRequest
from mentra_nb.store.records import BackgroundJob
from mentra_nb.tools.builtin.shell import Command, CommandTool, report, working_directory
from mentra_nb.tools.clipping import MAX_RESULT_BYTES, MAX_RESULT_LINES, as_printed, clipped
from mentra_nb.tools.schema import schema_of, validated
from mentra_nb.tools.spec import ToolSpec
from mentra_nb.tools.tool import Tool, ToolContext, ToolOutput

_READ_BYTES = 4 * MAX_RESULT_BYTES
"""Of an output's file, before control codes are removed from it."""


class BackgroundRunTool(CommandTool):
    """`background_run`: start a command line and return at once. A person is asked beforehand, as for `shell`."""

    arguments: type[Command] = Command
    in_background: bool = True
    spec: ToolSpec = ToolSpec(
        wire=ProviderToolSpec(
            name="background_run",
            description=(
                "Start a shell command in the background and return at once, for what takes long or serves others. "
                "You are told when it has ended; check_background shows its output before."
            ),
            input_schema=schema_of(Command),
        ),
        capabilities=(ToolCapability.BACKGROUND_EXEC, ToolCapability.FILESYSTEM_WRITE),
    )

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        self.check_policy(context, arguments)
        policy = context.policy
        request = CommandRequest(
            command=arguments["command"],
            cwd=working_directory(context, arguments),
            timeout=policy.background_timeout,
            env=policy.environment(),
            max_output_bytes_per_stream=policy.max_output_bytes_per_stream,
        )
        job = await context.service(Jobs).start(
            context.agent_id,
            request,
            executor=context.executor,
            limit=policy.background_task_limit,
            report=partial(report, timeout=request.timeout),
            run_id=context.run_id,
        )
        return ToolOutput(f"Started background task {job.id} in {job.cwd} for {job.command}")


class _Check(BaseModel):
    task_id: str | SkipJsonSchema[None] = Field(None, description="Which one; without it, all are listed.")


class CheckBackgroundTool(Tool):
    """`check_background`: the state and the output so far of one background task, or a list of all."""

    spec: ToolSpec = ToolSpec(
        wire=ProviderToolSpec(
            name="check_background",
            description="Show the state and the output so far of a background task, or list all of them.",
            input_schema=schema_of(_Check),
        ),
        reads_only=True,
        parallel=True,
    )

    def validate(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return validated(_Check, arguments).model_dump(exclude_none=True)

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        jobs = context.service(Jobs)
        if job_id := arguments.get("task_id"):
            job = jobs.get(context.agent_id, job_id)
            return ToolOutput(await anyio.to_thread.run_sync(_described, job))
        lines = [f"{job.id}: [{job.status}] cwd={job.cwd} {job.command}" for job in jobs.of(context.agent_id)]
        return ToolOutput("\n".join(lines) or "No background tasks.")


def _described(job: BackgroundJob) -> str:
    """Return the state of a job, its command, and its output with how it ended."""
    text = as_printed(output_of(job, _READ_BYTES)).strip("\n")
    text = clipped(text, MAX_RESULT_BYTES - 2048, MAX_RESULT_LINES - 10, LEFT_OUT)
    parts = (f"[{job.status}] cwd={job.cwd}", job.command, text, "(running)" if job.status == "running" else "")
    return "\n".join(filter(None, parts))


class _Stop(BaseModel):
    task_id: str = Field(min_length=1, description="Which one to stop.")


class StopBackgroundTool(Tool):
    """`stop_background`: stop a background task of the agent, with all its processes."""

    spec: ToolSpec = ToolSpec(
        wire=ProviderToolSpec(
            name="stop_background",
            description="Stop a background task, with all its processes.",
            input_schema=schema_of(_Stop),
        ),
        effect="idempotent",
        asks=False,
        capabilities=(ToolCapability.BACKGROUND_EXEC,),
    )

    def validate(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return validated(_Stop, arguments).model_dump()

    def subject(self, context: ToolContext, arguments: dict[str, Any]) -> Subject:
        return Subject.text(arguments["task_id"])

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        job = await context.service(Jobs).stop(context.agent_id, arguments["task_id"], "stopped by the model")
        return ToolOutput(f"Stopped background task {job.id}: {job.command}")
