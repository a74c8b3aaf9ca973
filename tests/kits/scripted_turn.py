"""A real, small turn for the kernel tests: it streams, asks and runs a tool on its own thread, like the engine does."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future
from typing import Any

from mentra_nb.authorization import (
    PermissionDecision,
    PermissionQuestion,
    ToolAuthorizationPreview,
    ToolCapability,
)
from mentra_nb.content import TokenUsage
from mentra_nb.errors import Cancelled, OperationDenied
from mentra_nb.event.screen import (
    AssistantMessageCompleted,
    AssistantTokenDelta,
    QuestionAnswered,
    QuestionAsked,
    SessionError,
    SessionEvent,
    ToolCompleted,
    ToolQueued,
    ToolStarted,
)


class ScriptedReply:
    model = "scripted"
    usage = TokenUsage(input_tokens=1234, output_tokens=300)
    cost = None

    def __init__(self, decisions: list[PermissionDecision]) -> None:
        self.decisions = decisions


class ScriptedTurn:
    """Streams `text`, asks about each of `commands` in turn, streams `after`."""

    def __init__(
        self,
        *commands: str,
        text: str = "I look at the files.\n\n",
        after: str = "Done.\n",
        deadline: float = 600.0,
        pause: float = 0.0,
    ) -> None:
        self.events: queue.SimpleQueue[SessionEvent] = queue.SimpleQueue()
        self.future: Future[ScriptedReply] = Future()
        self.answered_at: list[float] = []
        self._answers: dict[str, queue.SimpleQueue[PermissionDecision | None]] = {}
        self._questions: dict[str, PermissionQuestion] = {}
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._script = commands, text, after, deadline, pause
        threading.Thread(target=self._run, daemon=True).start()

    def answer(self, request_id: str, decision: PermissionDecision) -> None:
        with self._lock:
            if self._questions.pop(request_id, None) is None:
                raise OperationDenied("this question is already closed")
        self._answers[request_id].put(decision)

    def stop(self) -> None:
        self._stopped.set()
        for waiting in self._answers.values():
            waiting.put(None)

    def open_questions(self) -> list[PermissionQuestion]:
        return list(self._questions.values())

    def _run(self) -> None:
        commands, text, after, deadline, pause = self._script
        try:
            self._stream(text, pause)
            decisions = [self._call(f"call-{n}", command, deadline) for n, command in enumerate(commands)]
            self._stream(after, pause)
        except BaseException as error:
            self.events.put(SessionError(message=str(error), recoverable=False))
            self.future.set_exception(error)
        else:
            self.events.put(AssistantMessageCompleted(text=after))
            self.future.set_result(ScriptedReply(decisions))

    def _stream(self, text: str, pause: float) -> None:
        for word in text.split(" "):
            if self._stopped.wait(pause):
                raise Cancelled
            self.events.put(AssistantTokenDelta(delta=word + " "))

    def _call(self, call_id: str, command: str, deadline: float) -> PermissionDecision:
        arguments: dict[str, Any] = {"command": command}
        self.events.put(
            ToolQueued(
                tool_call_id=call_id,
                tool_name="shell",
                summary=f"shell: {command}",
                mutability="unknown",
                input_json=str(arguments),
            )
        )
        self.events.put(ToolStarted(tool_call_id=call_id, tool_name="shell"))
        decision = self._ask(call_id, command, arguments, deadline)
        if decision.allow:
            self.events.put(
                ToolCompleted(
                    tool_call_id=call_id, tool_name="shell", summary="3 files", is_error=False, duration_ms=200
                )
            )
        return decision

    def _ask(self, call_id: str, command: str, arguments: dict[str, Any], wait: float) -> PermissionDecision:
        request_id, now = f"request-{call_id}", time.time()
        question = PermissionQuestion(
            request_id=request_id,
            session_id="session-1",
            agent_id="agent-1",
            agent_name="mentra",
            run_id="run-1",
            tool_call_id=call_id,
            tool_name="shell",
            description="No rule covers this command.",
            subject=command,
            arguments=arguments,
            preview=ToolAuthorizationPreview(working_directory=".", capabilities=(ToolCapability.PROCESS_EXEC,)),
            arguments_hash="",
            asked_at=now,
            deadline=now + wait,
        )
        waiting = self._answers[request_id] = queue.SimpleQueue()
        with self._lock:
            self._questions[request_id] = question
        self.events.put(
            QuestionAsked(
                request_id=request_id,
                tool_call_id=call_id,
                tool_name="shell",
                description=question.description,
                preview="{}",
                question=question,
            )
        )
        try:
            decision = waiting.get(timeout=wait)
        except queue.Empty:
            decision = PermissionDecision(allow=False, by="timeout")
        self.answered_at.append(time.time())
        with self._lock:
            self._questions.pop(request_id, None)
        self.events.put(
            QuestionAnswered(
                request_id=request_id,
                tool_call_id=call_id,
                tool_name="shell",
                outcome="allowed" if decision and decision.allow else "denied",
                decided_by=decision.by if decision else "cancelled",
                rule_scope=decision.remember if decision else None,
                reason=decision.reason if decision else None,
            )
        )
        if decision is None:
            raise Cancelled
        return decision


def load_ipython_extension(shell: Any) -> None:
    """`%%turn` asks about each line of its cell; `%mentra` stands for the real magic and shows that it ran."""
    from mentra_nb.notebook.drive import drive

    def turn(line: str, cell: str) -> None:
        shell.user_ns["reply"] = drive(ScriptedTurn(*cell.strip().split("\n"), **eval(f"dict({line})")))

    shell.register_magic_function(turn, "cell", "turn")
    shell.register_magic_function(lambda line: print(f"ran as a cell: {line}"), "line", "mentra")
