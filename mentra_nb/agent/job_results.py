"""The results of background jobs as a source of messages: each reaches the model once, also across a failed turn."""

from __future__ import annotations

import json
import re

from mentra_nb.agent.steering import Boundary
from mentra_nb.agent.transcript import Transcript
from mentra_nb.background.jobs import Jobs
from mentra_nb.content import Message
from mentra_nb.store.records import BackgroundJob, EntryKind

_MARK = re.compile(r"^\[bg:(\S+)\]", re.MULTILINE)


class JobResults:
    """A `RoundSource`: at the next request an agent is told of its jobs that have ended, in the order they ended.

    A finished job does not keep a turn from ending: it is told in the next one, which `waking` can begin.
    """

    def __init__(self, jobs: Jobs, transcript: Transcript) -> None:
        self._jobs, self._transcript = jobs, transcript
        self._agent_id = transcript.agent_id
        self._drained: list[str] = []

    def is_waiting(self, at: Boundary) -> bool:
        """Return whether jobs have ended that the agent was not told of."""
        return at is Boundary.ROUND and self._jobs.is_waiting(self._agent_id)

    async def drain(self, at: Boundary) -> list[tuple[EntryKind, Message]]:
        """Return one message about all jobs that have ended, or none."""
        jobs = await self._jobs.take(self._agent_id)
        known = await self._told() if jobs else set()
        self._drained += [job.id for job in jobs]
        news = [job for job in jobs if job.id not in known]
        return [("canonical_context", Message.user(in_message(news)))] if news else []

    async def acknowledge(self) -> None:
        """Forget the results that were drained: they are part of the conversation."""
        drained, self._drained = self._drained, []
        await self._jobs.acknowledge(self._agent_id, drained)

    async def requeue(self) -> None:
        """Put the results that were drained back."""
        drained, self._drained = self._drained, []
        await self._jobs.requeue(self._agent_id, drained)

    async def _told(self) -> set[str]:
        """Return the jobs that the conversation has the results of: a turn was resumed whose process had died."""
        path = await self._transcript.store.load_path(self._agent_id, self._transcript.leaf)
        texts = [entry.message.text() for entry in path if entry.kind == "canonical_context"]
        return {found for text in texts for found in _MARK.findall(text)}


def in_message(jobs: list[BackgroundJob]) -> str:
    """Return the text about jobs that have ended: a line for each, in which what a command wrote is quoted."""
    lines = [
        f"[bg:{job.id}] status={job.status} command={_quoted(job.command)} "
        f"output={_quoted(job.output_preview or 'its process was killed')}"
        for job in jobs
    ]
    return "\n".join(["<background-results>", *lines, "</background-results>"])


def _quoted(text: str) -> str:
    """Return a text in quotes, in one line, without anything that could look like the end of the message."""
    return json.dumps(text, ensure_ascii=False).replace("<", "\\u003c")
