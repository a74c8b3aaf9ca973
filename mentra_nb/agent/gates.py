"""The gates between a model's call and its run:

    offered? → pre-execution hooks → arguments fit? → policy → authorizer → still the same?

A command that nothing before has decided about is tried in the sandbox and decided about by its effect (`trial.py`).
What was approved is what runs: hooks may change the arguments only before the decision, and what the call acts on is
compared with what was decided about just before it runs.

Every refusal is an error result for the model, and every call has exactly one decision in the record.
"""

from __future__ import annotations

import contextlib
import copy
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio.to_thread

from mentra_nb.agent.calls import Call, CallEvents, Earlier, Refused
from mentra_nb.agent.results import SKIPPED, bounded
from mentra_nb.agent.toolbox import Toolbox
from mentra_nb.authorization import (
    Subject,
    ToolAuthorizationDecision,
    ToolAuthorizationOutcome,
    ToolAuthorizationRequest,
    ToolCapability,
    allow_everything,
)
from mentra_nb.content import MAX_DEPTH, ToolUse, is_too_deep
from mentra_nb.event import types as e
from mentra_nb.permission.asking import NOBODY, SessionPermissions
from mentra_nb.permission.binding import contained, contained_call, decide_in_time
from mentra_nb.permission.policy import PolicyViolation
from mentra_nb.store.records import Resolution
from mentra_nb.tools.schema import ToolError
from mentra_nb.tools.tool import Tool, ToolContext

if TYPE_CHECKING:
    from mentra_nb.permission.ahead import AskedAhead

NO_AUTHORIZER = (
    "it may change something and this program has no authorizer: give one with Runtime(authorizer=…); "
    "authorizer=allow_everything asks nobody"
)
"""Why an agent without an authorizer may only read."""
DENIED = "Tool execution denied: "
"""How the result of a denied call begins; the reason that is recorded does not."""
T = TypeVar("T")
Allow: Final = ToolAuthorizationOutcome.ALLOW
Deny: Final = ToolAuthorizationOutcome.DENY


async def _on_thread(described: Callable[[ToolContext, dict[str, Any]], T], call: Call) -> T:
    """Call a method of a tool: on a thread unless it is `Tool`'s, as it may read the files that would be changed."""
    work = partial(contained_call, partial(described, call.context, call.arguments))
    kind = type(call.tool)
    if kind.structured_input is Tool.structured_input and kind.preview is Tool.preview:
        return work()
    return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)


@dataclass(eq=False, repr=False)
class Gates:
    """Decide about the calls of one turn. `answer_tool`, which takes a typed answer, needs no permission."""

    events: CallEvents
    toolbox: Toolbox
    answer_tool: Tool | None
    is_open: Callable[[str], bool]
    """Whether a call, by its id, has no result yet."""
    history_len: int = 0
    earlier: Earlier = field(default_factory=Earlier)
    ahead: AskedAhead | None = None
    """Decides instead of the authorizer about the calls of a round whose questions are open together."""

    async def prepare(self, use: ToolUse) -> Call:
        """Take a call through the gates up to the authorizer. Raises `Refused` with the text for the model."""
        call = self._known(use)
        changed = await self._pre_hooks(call)
        if call.misfit is not None:
            text = str(call.misfit)
            raise self.events.blocked(use, text) if changed else self.events.misfit(use, text, DENIED)
        return call

    async def check_unchanged(self, call: Call) -> None:
        """Raise `Refused` when the call would act on something else now than when it was decided about."""
        try:
            contained_call(lambda: call.tool.check_policy(call.context, call.arguments))
            now = (
                contained_call(lambda: call.tool.subject(call.context, call.arguments)),
                await _on_thread(call.tool.structured_input, call),
            )
        except PolicyViolation as violation:
            self.events.policy_denied(call.use, violation)
            raise Refused(f"{DENIED}{violation}") from violation
        except Exception as error:
            raise Refused(f"{DENIED}{error}") from error
        if now != call.decided:
            raise Refused(f"{DENIED}what this call acts on changed while it was decided about; call it again")

    def _known(self, use: ToolUse) -> Call:
        tool = self.toolbox.get(use.name)
        if tool is not None and not self.toolbox.may_call(use.name):
            raise self.events.denied(use, f"Tool '{use.name}' is not available for this agent", "runtime")
        if tool is None:
            known = ", ".join(self.toolbox.names()) or "none"
            raise self.events.denied(use, f"Tool not found: '{use.name}'; available: {known}", "runtime")
        if use.error is not None:
            text = f"The arguments of '{use.name}' are not a JSON object: {use.error}"
            raise self.events.misfit(use, text)
        call = Call(use, tool, self.events.context(use, self.is_open), use.input)
        _fit(call, use.input)
        return call

    async def _describe(self, call: Call, *, tries: bool = False) -> ToolAuthorizationRequest:
        """Return what is to be decided: the call with what it acts on and would do, once the policy has passed it.

        `tries` says that it can be tried in the sandbox.
        """
        use = call.use
        try:
            return await self._request(call, tries=tries)
        except PolicyViolation as violation:
            self.events.policy_denied(use, violation)
            raise self.events.denied(use, str(violation), "policy", DENIED) from violation
        except Exception as error:
            raise self.events.denied(use, str(error), "runtime", DENIED) from error

    async def _request(self, call: Call, *, tries: bool) -> ToolAuthorizationRequest:
        use, tool, caller = call.use, call.tool, self.events.caller
        before = self.earlier.unknown.get(use.id)
        contained_call(lambda: tool.check_policy(call.context, call.arguments))
        preview = await _on_thread(tool.preview, call)
        subject = contained_call(lambda: tool.subject(call.context, call.arguments))
        return ToolAuthorizationRequest(
            **self.events.about(use),
            agent_name=caller.agent_name,
            model=caller.model,
            history_len=self.history_len,
            preview=preview.model_copy(update={"raw_input": use.input}),
            subject=subject.model_copy(update={"sandboxed": True}) if tries else subject,
            arguments=call.arguments,
            asks=tool.spec.asks,
            again=before is not None and tool.spec.effect == "once",
            earlier_runs=self.earlier.run_ids,
            form=contained_call(lambda: tool.form(call.context, call.arguments)),
        )

    async def ask_ahead(self, calls: Sequence[ToolUse], ahead: AskedAhead) -> None:
        """Put the questions about calls whose turns have not come, as far as they can be told now."""
        self.ahead = ahead
        for use in calls:
            tool = self.toolbox.get(use.name)
            if tool is None or not self.toolbox.may_call(use.name) or use.error is not None or tool is self.answer_tool:
                continue
            call = Call(use, tool, self.events.context(use, self.is_open), use.input)
            _fit(call, use.input)
            if call.misfit is None:
                with contextlib.suppress(Exception):  # it is refused when its turn comes, if this fails then as well
                    await ahead.ask(await self._request(call, tries=self._may_try(call)))

    async def authorize(self, call: Call) -> Call:
        """Decide about a call that was prepared, and return it. Raises `Refused`. Several may be decided at once."""
        use = call.use
        request = await self._describe(call, tries=self._may_try(call))
        again, subject = request.again, request.subject
        call.decided = (subject.model_copy(update={"sandboxed": False}), request.preview.structured_input)
        before = self.earlier.unknown.get(use.id)
        if before is not None and before.resolution == "run_again":
            self.events.decided(use, ToolAuthorizationDecision.allow("user"), subject)
            return call
        if self._needs_nobody(call, request) and not again:
            self.events.decided(use, ToolAuthorizationDecision.allow("runtime"), subject)
            return call
        self.events.emit(e.ToolAuthorizationStarted(preview=request.preview, **self.events.about(use)))
        began = time.monotonic()
        decision = await self._ask(request)
        if decision.decided_by == "sandbox" and request.subject.sandboxed:
            from mentra_nb.agent.trial import Trials

            decision = await Trials(self.events).judge(call, request, self._ask)
        if again and decision.outcome is Allow and decision.decided_by != "user":
            decision = ToolAuthorizationDecision.deny("only a person can decide to run it again", "runtime")
        if decision.outcome is Allow and decision.arguments is not None:
            decision, subject = await self._edited(call, decision, decision.arguments)
        self.events.decided(use, decision, subject, int((time.monotonic() - began) * 1000))
        if before is not None:
            resolution: Resolution = "run_again" if decision.outcome is Allow else "skipped"
            await self.events.environment.store.resolve_tool_call(before.run_id, use.id, resolution)
        if decision.outcome is not Allow:
            raise self._refused(use, decision, again=again)
        call.note = _note(call, decision)
        if decision.values is not None:
            call.context = replace(call.context, values=decision.values)
        return call

    async def _edited(
        self, call: Call, decision: ToolAuthorizationDecision, arguments: dict[str, Any]
    ) -> tuple[ToolAuthorizationDecision, Subject]:
        """Give a call the arguments that a person approved instead of its own. Returns the decision, and its subject.

        Hooks, policy and denials judge them as they would have judged a call of the model.
        """
        _fit(call, arguments)
        approved = call.arguments
        if call.misfit is None and await self._pre_hooks(call) and call.arguments != approved:
            call.misfit = ToolError("a hook would change the arguments that were approved")
        if call.misfit is not None:
            refusal = ToolAuthorizationDecision.deny(f"the changed arguments do not fit: {call.misfit}", "runtime")
            return refusal.model_copy(update={"request_id": decision.request_id}), Subject()
        request = await self._describe(call)
        call.decided = (request.subject, request.preview.structured_input)
        authorizer = self.events.environment.authorizer
        denial = await authorizer.denial(request) if isinstance(authorizer, SessionPermissions) else None
        if denial is not None:
            return denial.model_copy(update={"request_id": decision.request_id}), request.subject
        return decision, request.subject

    def _may_try(self, call: Call) -> bool:
        """Return whether a call is of a kind that can be tried, if there is a sandbox on this machine."""
        return self.events.environment.fence is not None and call.tool.acts_by_command

    def _needs_nobody(self, call: Call, request: ToolAuthorizationRequest) -> bool:
        """Return whether nobody needs to decide: the typed answer, or what runs unasked without an authorizer."""
        authorizer = self.events.environment.authorizer
        if request.form is not None:
            return False
        if call.tool is self.answer_tool or authorizer is allow_everything:
            return True
        if authorizer is not None or request.subject.protected:
            return False
        return ToolCapability.READ_ONLY in request.preview.capabilities or not request.asks

    def _refused(self, use: ToolUse, decision: ToolAuthorizationDecision, *, again: bool) -> Refused:
        reason = None if decision.reason is None else bounded(decision.reason)
        self.events.emit(e.ToolAuthorizationBlocked(outcome=decision.outcome, reason=reason, **self.events.about(use)))
        if again:
            return Refused(f"{SKIPPED}: {decision.reason}" if decision.reason else SKIPPED)
        if decision.outcome is Deny:
            return Refused(f"{DENIED}{decision.reason or 'denied by authorizer'}")
        return Refused(f"Tool execution requires approval: {decision.reason or 'nobody could be asked'}")

    async def _ask(self, request: ToolAuthorizationRequest) -> ToolAuthorizationDecision:
        authorizer = self.events.environment.authorizer
        if request.form is not None and not isinstance(authorizer, SessionPermissions):
            return ToolAuthorizationDecision.deny(NOBODY, "headless")
        if request.again and (authorizer is None or authorizer is allow_everything):
            return ToolAuthorizationDecision.deny("nobody could be asked", "runtime")
        if authorizer is None:
            return ToolAuthorizationDecision.deny(NO_AUTHORIZER, "runtime")
        try:
            return await decide_in_time(self.ahead or authorizer, request)
        except Exception as error:  # noqa: BLE001 - fail closed, whatever went wrong
            return ToolAuthorizationDecision.deny(str(error) or type(error).__name__)

    async def _pre_hooks(self, call: Call) -> bool:
        """Ask the hooks about a call. Returns whether one has changed its arguments."""
        use, changed = call.use, False
        if not self.events.environment.pre_hooks:
            return changed
        from mentra_nb.tools.pre_hooks import PreExecutionContext

        for hook in self.events.environment.pre_hooks:
            folder, given = str(call.context.working_directory), copy.deepcopy(call.arguments)
            context = PreExecutionContext(self.events.caller.agent_id, use.name, use.id, given, folder)
            try:
                decision = await contained(hook.before_execution(context))
                if decision.outcome == "modify":
                    if is_too_deep(decision.input):
                        raise ValueError(f"its arguments are nested deeper than {MAX_DEPTH} levels")
                    changed = True
                    _fit(call, decision.input or {})
            except Exception as error:
                raise self.events.blocked(use, str(error) or type(error).__name__) from error
            if decision.outcome == "deny":
                raise self.events.blocked(use, decision.reason or "refused")
        return changed


def _note(call: Call, decision: ToolAuthorizationDecision) -> str:
    """Return what the result of an allowed call begins with: what ran, if a person changed it, and what they said."""
    notes = []
    if decision.arguments is not None:
        ran = bounded(json.dumps(call.arguments, ensure_ascii=False, default=str))
        notes.append(f"[the user changed the arguments before allowing it, so this ran: {ran}]")
    if decision.decided_by == "user" and decision.reason:
        notes.append(f"[the user allowed it and says: {bounded(decision.reason)}]")
    return "\n".join(notes)


def _fit(call: Call, arguments: dict[str, Any]) -> None:
    """Give a call its arguments as the tool reads them, or as they are if they do not fit."""
    try:
        call.arguments, call.misfit = contained_call(partial(call.tool.validate, arguments)), None
    except Exception as error:  # noqa: BLE001 - code of an application
        call.arguments, call.misfit = arguments, error
