"""A call that is tried in the sandbox first, and decided about by what it did there.

    tried → wanted what it did not get? → policy on each file → nothing changed? → *Keep* or *Discard*

The tool runs twice: in the sandbox, where its command really runs, and, once that is decided, as any other call. Then
its command is not run again: its effect is brought into the workspace, and it gets the output it had.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from mentra_nb.agent.calls import Call, CallEvents
from mentra_nb.agent.effects import in_words, shown_effect
from mentra_nb.authorization import (
    CallEffect,
    ToolAuthorizationDecision,
    ToolAuthorizationOutcome,
    ToolAuthorizationRequest,
)
from mentra_nb.effect.journal import Journal
from mentra_nb.effect.types import Conflict, Effect, FileChange
from mentra_nb.permission.asking import SessionPermissions
from mentra_nb.permission.binding import contained
from mentra_nb.permission.effects import unreadable
from mentra_nb.permission.policy import PolicyViolation, RuntimePolicy
from mentra_nb.permission.protected import guard
from mentra_nb.sandbox.executor import CommandRequest, ExecOutput
from mentra_nb.sandbox.fenced import Fence, FenceFailed, fence_problem, workspace_problem
from mentra_nb.sandbox.waiting import FencedRun, taken_over, waiting_folder

log: logging.Logger = logging.getLogger(__name__)

Ask = Callable[[ToolAuthorizationRequest], Awaitable[ToolAuthorizationDecision]]
FAILED_TAIL = 1_500
"""Characters of the output of a command that failed in the sandbox, beside the reason why it may not run outside."""


@dataclass
class _Fenced:
    """The executor of a tool that is tried: one command, fenced.

    What it did in a process that was killed while it waited for an answer is taken over from there.
    """

    fence: Fence
    workspace: Path
    hides: Callable[[str], bool] | None
    runs: Sequence[str]
    """The turns, of killed processes, that this one continues."""
    call: str
    request: CommandRequest | None = None
    run_: FencedRun | None = None

    async def run(self, request: CommandRequest, on_line: Callable[[str], None] | None = None) -> ExecOutput:
        if self.request is not None:
            raise FenceFailed("it runs more than one command")
        self.request = request
        if self.runs:
            waiting = self.fence.folder or waiting_folder()
            self.run_ = await anyio.to_thread.run_sync(taken_over, waiting, self.runs, self.call, request)
        self.run_ = self.run_ or await self.fence.run(request, self.workspace, on_line, self.hides)
        return self.run_.output


@dataclass
class _Kept:
    """The executor of a tool that was tried: brings the effect into the workspace and returns the output it had."""

    request: CommandRequest
    tried: FencedRun
    keep: Callable[[], None]
    _used: bool = field(default=False, init=False)

    async def run(self, request: CommandRequest, on_line: Callable[[str], None] | None = None) -> ExecOutput:
        if self._used or request != self.request:
            raise Conflict([], "the command is not the one that was tried")
        self._used = True
        try:
            await anyio.to_thread.run_sync(self.keep)
        finally:
            self.tried.close()
        output, wanted = self.tried.output, self.tried.effect.wanted
        notes = [f"[the sandbox has not: {in_words(want)}]" for want in wanted]
        return replace(output, stderr="\n".join([*filter(None, [output.stderr.rstrip("\n")]), *notes]))


@dataclass
class Trials:
    """Tries the calls of one turn."""

    events: CallEvents
    journal: Journal = field(default_factory=Journal)

    async def judge(self, call: Call, request: ToolAuthorizationRequest, ask: Ask) -> ToolAuthorizationDecision:
        """Try a call, and return what is decided about what it did. If that is kept, `call` is prepared for it.

        Where it cannot be tried, it is asked about beforehand.
        """
        make, base, began = self.events.environment.fence, call.context.working_directory, time.monotonic()
        problem = await anyio.to_thread.run_sync(lambda: workspace_problem(base) or fence_problem())
        if make is None or problem is not None:
            return await _unfenced(call, _beforehand(request), ask, problem or "there is none")
        authorizer = self.events.environment.authorizer
        rules = await authorizer.rules() if isinstance(authorizer, SessionPermissions) else []
        fenced = _Fenced(make(), base, unreadable(rules, str(base)), request.earlier_runs, call.use.id)
        self.events.tried.add(call.use.id)
        try:
            tried = await self._tried(call, fenced)
        except FenceFailed as failure:
            log.warning("asked beforehand, as the sandbox failed: %s", failure)
            return await _unfenced(call, _beforehand(request), ask, str(failure))
        call.tried_ms = int((time.monotonic() - began) * 1000)
        kept = None
        try:
            await self._hold(call, fenced.request, tried)
            decision, kept = await self._decide(call, request, tried, ask)
            if kept is not None and fenced.request is not None:
                executor = _Kept(fenced.request, kept, partial(self._keep, call, kept))
                call.context = replace(call.context, executor=executor)
                call.changes_nothing = not kept.effect.changes
            return decision
        finally:
            if kept is None:
                tried.close()
            if kept is None or kept.effect != tried.effect:
                self._record_discarded(call, tried.effect.changes)

    async def _hold(self, call: Call, request: CommandRequest | None, tried: FencedRun) -> None:
        """Keep what a command did for the time in which a person may be asked about it, also beyond a kill."""
        authorizer = self.events.environment.authorizer
        if request is None or not tried.effect.changes or not isinstance(authorizer, SessionPermissions):
            return
        deadline = time.time() + authorizer.ask_timeout
        hold = partial(tried.hold, request, run=call.context.run_id, call=call.use.id, deadline=deadline)
        try:
            await anyio.to_thread.run_sync(hold)
        except OSError as error:
            log.warning("the command must run again if this process is killed while it waits for an answer: %s", error)

    def _record_discarded(self, call: Call, changes: Sequence[FileChange]) -> None:
        from mentra_nb.event.effects import effects_discarded

        about = {"agent_name": call.context.agent_name, **self.events.about(call.use)}
        for event in effects_discarded(changes, **about):
            self.events.emit(event)

    async def _tried(self, call: Call, fenced: _Fenced) -> FencedRun:
        """Run the tool with a fenced command. Raises `FenceFailed`."""
        context = replace(call.context, executor=fenced)
        try:
            with anyio.move_on_after(call.tool.spec.execution_timeout):
                await contained(call.tool.execute(context, call.arguments))
        except FenceFailed:
            if fenced.run_ is not None:
                fenced.run_.close()
            raise
        except Exception:  # noqa: BLE001, S110 - what it comes to is told when it runs as any other call
            pass
        if fenced.run_ is None:
            raise FenceFailed("its command did not come to an end")
        return fenced.run_

    async def _decide(
        self, call: Call, request: ToolAuthorizationRequest, tried: FencedRun, ask: Ask
    ) -> tuple[ToolAuthorizationDecision, FencedRun | None]:
        """Return the decision, and the run whose output and effect are taken over, if one is."""
        failed = not tried.output.success and bool(tried.effect.wanted)
        if (tried.problem is not None and not tried.output.timed_out) or failed:
            return await self._decide_outside(call, request, tried, ask)
        if tried.moved:
            moved = ", ".join(map(repr, tried.moved[:5]))
            return ToolAuthorizationDecision.deny(f"{moved} changed while it ran; call it again", "sandbox"), None
        try:
            for change in tried.effect.changes:
                check_writable(call.context.policy, call.context.working_directory, change)
        except PolicyViolation as violation:
            self.events.policy_denied(call.use, violation)
            return ToolAuthorizationDecision.deny(str(violation), "policy"), None
        shown = await anyio.to_thread.run_sync(shown_effect, tried)
        decision = await ask(request.model_copy(update={"effect": shown}))
        if decision.outcome is ToolAuthorizationOutcome.ALLOW:
            return decision, tried
        if shown.files:
            discarded = "; ".join(filter(None, ["what it did was discarded", decision.reason]))
            decision = decision.model_copy(update={"reason": discarded})
        return decision, None

    async def _decide_outside(
        self, call: Call, request: ToolAuthorizationRequest, tried: FencedRun, ask: Ask
    ) -> tuple[ToolAuthorizationDecision, FencedRun | None]:
        """Decide whether a command that could not do all in the sandbox may run outside, anew."""
        wanted = [in_words(want) for want in tried.effect.wanted]
        problem = [f"its effect cannot be kept: {tried.problem}"] if tried.problem else []
        if call.context.policy.sandboxed_only:
            decision = ToolAuthorizationDecision.allow("sandbox")
        else:
            decision = await ask(_outside(request, [*problem, *wanted]))
        if decision.outcome is not ToolAuthorizationOutcome.ALLOW:
            said = f"{tried.output.stdout}\n{tried.output.stderr}".strip()[-FAILED_TAIL:]
            reason = "\n".join(
                filter(None, [decision.reason, "in the sandbox, where it changed nothing, it said:", said])
            )
            return decision.model_copy(update={"reason": reason}), None
        if decision.decided_by == "sandbox":  # it may not run outside, or nobody could be asked: what it said counts
            return decision, replace(tried, effect=Effect((), tried.effect.wanted))
        return decision, None

    def _keep(self, call: Call, kept: FencedRun) -> None:
        """Make the changes in the workspace. Raises `Conflict`, `OSError`, `PolicyViolation`."""
        for change in kept.effect.changes:
            check_writable(call.context.policy, call.context.working_directory, change)
        if kept.effect.changes:
            about = {"turn": call.context.run_id, "call": call.use.id, "tool": call.use.name}
            call.context.changed(self.journal.apply(kept.effect.changes, kept.contents, **about))


async def _unfenced(call: Call, request: ToolAuthorizationRequest, ask: Ask, why: str) -> ToolAuthorizationDecision:
    """Ask whether a call may run without the sandbox, unless the policy forbids that."""
    if call.context.policy.sandboxed_only:
        return ToolAuthorizationDecision.deny(f"the policy has commands run in the sandbox only: {why}", "policy")
    return await ask(request)


def _beforehand(request: ToolAuthorizationRequest) -> ToolAuthorizationRequest:
    """Return the request for a call that is not tried in the sandbox."""
    return request.model_copy(update={"subject": request.subject.model_copy(update={"sandboxed": False})})


def _outside(request: ToolAuthorizationRequest, wanted: list[str]) -> ToolAuthorizationRequest:
    """Return the request to run a call outside the sandbox, as it could not do there what it should."""
    effect = CallEffect(digest="outside", wanted=tuple(wanted), outside=True)
    return _beforehand(request).model_copy(update={"effect": effect})


def check_writable(policy: RuntimePolicy, base: Path, change: FileChange) -> None:
    """Raise `PolicyViolation` when the policy forbids a change of a file. A link is judged itself, not its target."""
    path = Path(change.path)
    if "link" in (change.before and change.before.type, change.after and change.after.type):
        policy.writable(base, str(path.parent))
        found = guard(path, "write")
        if found is not None and found.refused:
            raise PolicyViolation("files_write", f"'{path}' cannot be written: {found.why}")
    else:
        policy.writable(base, str(path))
