"""Records for tests: segments of single events, and sessions written as the runtime writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

import mentra_nb.event.types as e
from mentra_nb.authorization import ToolAuthorizationPreview
from mentra_nb.content import TokenUsage
from mentra_nb.record.keep.verify import verify
from mentra_nb.record.read import frames
from mentra_nb.record.write.journal import Journal

SONNET = ("anthropic", "claude-sonnet-4-5")


def write(folder: Path, *notes: Any) -> str:
    """Write a sealed segment with an event for each note. Returns its name."""
    journal = Journal(folder)
    for note in notes:
        journal.record_audit_event("agent-1", "run_aborted", {"reason": str(note)})
    name = journal.health().segment
    journal.close()
    assert name
    return name


def seen(folder: Path) -> list[str]:
    """Return the notes that a query finds."""
    found = frames.sql("SELECT reason FROM events WHERE kind = 'run_aborted' ORDER BY id", folder=folder)
    return list(found.reason)


def problems(folder: Path) -> dict[str, str]:
    """Return what `verify` finds wrong, by segment."""
    found = verify(folder).dropna(subset="problem")
    return dict(zip(found.segment, found.problem, strict=True))


class Record:
    """A record's folder and a journal that writes to it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.journal = folder, Journal(folder)

    def add(self, kind: type[e.RuntimeEvent], **fields: Any) -> None:
        """Write one event."""
        event = kind(**({"agent_id": "agent-1"} | fields))
        self.journal.record_audit_event(event.scope(), event.kind, event.model_dump(mode="json"))

    def response(
        self, request: str, run: str, usage: TokenUsage | None, of: tuple[str, str] = SONNET, **more: Any
    ) -> None:
        """Write a request to a model and its response."""
        same = {"run_id": run, "request_id": request, "provider": of[0], "model": of[1], "attempt": 1}
        self.add(e.ModelRequestStarted, **same)
        self.add(e.ModelRequestFinished, **same, success=True)
        self.add(e.ModelResponseFinished, **same, usage=usage, **({"success": True} | more))

    def call(
        self,
        call: str,
        run: str,
        decision: str | None = "allow",
        *,
        asked: bool = False,
        ok: bool | None = True,
        tool: str = "shell",
    ) -> None:
        """Write a tool call: asked about, decided and run as given. `None` leaves it undecided, or unfinished."""
        same: dict[str, Any] = {"run_id": run, "tool_call_id": call, "tool_name": tool}
        preview = ToolAuthorizationPreview(working_directory="/", raw_input={"command": "ls"})
        self.add(e.ToolAuthorizationStarted, **same, preview=preview)
        question = f"question-{call}" if asked else None
        if asked:
            self.add(
                e.QuestionAsked,
                **same,
                request_id=question,
                description="no rule",
                subject="ls",
                session_id="s1",
                deadline=2_000_000_000.0,
            )
        if decision is None:
            return
        if asked:
            outcome = "allowed" if decision == "allow" else "denied"
            self.add(
                e.QuestionAnswered,
                **same,
                request_id=question,
                outcome=outcome,
                decided_by="user",
                waited_ms=1500,
                rule_scope="project",
                session_id="s1",
            )
        self.add(
            e.ToolAuthorizationFinished,
            **same,
            outcome=decision,
            decided_by="user" if asked else "rule:1",
            reason="because",
            request_id=question,
            wait_ms=1500 if asked else 0,
            subject="ls",
        )
        if decision != "allow":
            self.add(e.ToolExecutionBlocked, **same, reason="because")
            return
        self.add(e.ToolExecutionStarted, **same, input={"command": "ls"})
        if ok is not None:
            self.add(
                e.ToolExecutionFinished,
                **same,
                is_error=not ok,
                error=None if ok else "exit 1",
                output_preview="a.txt",
                duration_ms=40,
            )

    def turn(self, run: str, session: str | None = "s1") -> None:
        """Write the beginning of a turn."""
        self.add(
            e.TurnStarted,
            run_id=run,
            model=SONNET[1],
            prompt="list files",
            session_id=session,
            cell_id="cell-9",
            execution_count=7,
            notebook="n.ipynb",
            project="p",
        )

    def end(self, run: str, session: str | None = "s1", **more: Any) -> None:
        """Write the end of a turn."""
        given = {"stop_reason": "end", "success": True, "duration_ms": 2000} | more
        self.add(e.TurnFinished, run_id=run, session_id=session, **given)

    def one_session(self) -> Record:
        """A session of one turn: two responses, three calls, one of them denied by a person."""
        self.add(e.SessionStarted, session_id="s1", title="Files", model=SONNET[1], project="p", notebook="n.ipynb")
        self.turn("r1")
        usage = TokenUsage(
            input_tokens=1000, output_tokens=100, cache_read_input_tokens=500, cache_creation_input_tokens=200
        )
        self.response("q1", "r1", usage, stop_reason="tool_use")
        self.call("c1", "r1", "allow", asked=True)
        self.call("c2", "r1", "deny", asked=True)
        self.call("c3", "r1", "allow", ok=False)
        self.response(
            "q2", "r1", TokenUsage(input_tokens=2000, output_tokens=50, total_tokens=2050), stop_reason="end_turn"
        )
        self.end("r1")
        self.journal.close()
        return self

    def two_sessions(self) -> Record:
        """Two sessions of two turns each, a call in every turn; the second session is named by its title too."""
        for session in ("s1", "s2"):
            self.add(e.SessionStarted, session_id=session, title=f"talk {session}", model=SONNET[1], notebook="n.ipynb")
            for n in (1, 2):
                run = f"{session}-r{n}"
                self.turn(run, session)
                self.response(f"{run}-q", run, TokenUsage(input_tokens=10, output_tokens=1))
                self.call(f"{run}-c", run, tool="shell" if n == 1 else "write", ok=n == 1)
                self.end(run, session)
        return self


def only(frame: pd.DataFrame) -> Any:
    """Return the one row of a frame."""
    assert len(frame) == 1
    return frame.iloc[0]
