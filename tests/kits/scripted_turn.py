"""A turn whose events a script puts in, on its own thread as the engine does: it streams, asks and runs a tool."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from typing import Any, cast

from mentra_nb.authorization import PermissionDecision, PermissionQuestion, ToolAuthorizationPreview, ToolCapability
from mentra_nb.chat.reply import Reply
from mentra_nb.chat.turn import RunningTurn
from mentra_nb.content import TokenUsage
from mentra_nb.errors import Cancelled, OperationDenied
from mentra_nb.event.screen import (
    AssistantMessageCompleted,
    AssistantTokenDelta,
    QuestionAnswered,
    QuestionAsked,
    SessionError,
    ToolCompleted,
    ToolQueued,
    ToolStarted,
)
from mentra_nb.runtime.session import Session

USAGE = TokenUsage(input_tokens=1234, output_tokens=300)


class OpenQuestions:
    """The part of a session that a turn's answers go to."""

    def __init__(self) -> None:
        self.answers: dict[str, queue.SimpleQueue[PermissionDecision]] = {}
        self.questions: dict[str, PermissionQuestion] = {}
        self.permissions = self
        self.project = None
        self.id = self.name = "session-1"

    def open_questions(self) -> list[PermissionQuestion]:
        return list(self.questions.values())

    def resolve_permission(self, request_id: str, decision: PermissionDecision) -> None:
        answer = self.answers.pop(request_id, None)
        if answer is None:
            raise OperationDenied("this question is already closed")
        answer.put(decision)


class ScriptedTurn(RunningTurn):
    """Streams `text`, asks about each of `commands` in turn, streams `after`."""

    def __init__(
        self,
        *commands: str,
        text: str = "I look at the files.\n\n",
        after: str = "Done.\n",
        deadline: float = 600.0,
        pause: float = 0.0,
    ) -> None:
        super().__init__()
        self.decisions: list[PermissionDecision] = []
        self.asked = threading.Event()
        """Set once the first question is among the events."""
        self._open = OpenQuestions()
        self.session = cast(Session, self._open)
        self._script = commands, text, after, deadline, pause
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        commands, text, after, deadline, pause = self._script
        try:
            self._stream(text, pause)
            for n, command in enumerate(commands):
                self._call(f"call-{n}", command, deadline)
            self._stream(after, pause)
        except BaseException as error:
            self.events.put(SessionError(message=str(error), recoverable=False))
            self.future.set_exception(error)
        else:
            self.events.put(AssistantMessageCompleted(text=after))
            self.future.set_result(Reply(after, "scripted", "session-1", "run-1", "end", 0.0, USAGE))

    def _stream(self, text: str, pause: float) -> None:
        for word in text.split(" "):
            time.sleep(pause)
            if self.token.is_cancelled:
                raise Cancelled
            self.events.put(AssistantTokenDelta(delta=word + " "))

    def _call(self, call_id: str, command: str, deadline: float) -> None:
        arguments: dict[str, Any] = {"command": command}
        call = {"tool_call_id": call_id, "tool_name": "shell"}
        summary, text = f"shell: {command}", json.dumps(arguments)
        self.events.put(ToolQueued(**call, summary=summary, mutability="unknown", input_json=text))
        self.events.put(ToolStarted(**call))
        decision = self._ask(call, command, arguments, deadline)
        self.events.put(
            QuestionAnswered(
                **call,
                request_id=f"request-{call_id}",
                outcome="allowed" if decision and decision.allow else "denied",
                decided_by=decision.by if decision else "cancelled",
                rule_scope=decision.remember if decision else None,
                reason=decision.reason if decision else None,
            )
        )
        if decision is None:
            raise Cancelled
        self.decisions.append(decision)
        if decision.allow:
            self.events.put(ToolCompleted(**call, summary="3 files", is_error=False, duration_ms=200))

    def _ask(
        self, call: dict[str, str], command: str, arguments: dict[str, Any], wait: float
    ) -> PermissionDecision | None:
        """Ask, and return the answer: a denial after `wait` seconds, `None` when the turn is stopped."""
        request_id, now = f"request-{call['tool_call_id']}", time.time()
        question = PermissionQuestion(
            **call,
            request_id=request_id,
            session_id="session-1",
            agent_id="agent-1",
            agent_name="mentra",
            run_id="run-1",
            description="No rule covers this command.",
            subject=command,
            arguments=arguments,
            preview=ToolAuthorizationPreview(working_directory=".", capabilities=(ToolCapability.PROCESS_EXEC,)),
            arguments_hash="",
            asked_at=now,
            deadline=now + wait,
        )
        answer = self._open.answers[request_id] = queue.SimpleQueue()
        self._open.questions[request_id] = question
        asked = QuestionAsked(**call, request_id=request_id, description=question.description, preview="{}")
        self.events.put(asked)
        self.asked.set()
        try:
            while time.time() < question.deadline:
                with contextlib.suppress(queue.Empty):
                    return answer.get(timeout=0.02)
                if self.token.is_cancelled:
                    return None
            return PermissionDecision(allow=False, by="timeout")
        finally:
            self._open.answers.pop(request_id, None)
            self._open.questions.pop(request_id, None)


def next_message(kernel: Any) -> bool:
    """Wait until a message for the shell channel is here, behind the running cell. Returns whether one came in 20 s."""
    if getattr(kernel, "shell_channel_thread", None) is None:  # ipykernel 6
        return not kernel.msg_queue.empty() or bool(kernel.shell_stream.socket.poll(20_000))
    pair = kernel.shell_channel_thread.manager.get_shell_channel_to_subshell_pair(None)
    return bool(pair.to_stream.socket.poll(20_000))


def load_ipython_extension(shell: Any) -> None:
    """`%%turn` asks about each line of its cell; `%mentra` stands for the real magic and prints that it ran.

    `behind=True` on the line of `%%turn` shows the turn only once its first question is among the events, and the
    kernel has the next message of the page.
    """
    from mentra_nb.notebook.drive import drive

    def turn(line: str, cell: str) -> None:
        options = eval(f"dict({line})")
        behind = options.pop("behind", False)
        running = ScriptedTurn(*cell.strip().split("\n"), **options)
        if behind:
            assert running.asked.wait(20)
            assert next_message(shell.kernel)
        shell.user_ns.update(reply=drive(running, hz=12.0), decisions=running.decisions)

    shell.register_magic_function(turn, "cell", "turn")
    shell.register_magic_function(lambda line: print(f"ran as a cell: {line}"), "line", "mentra")
