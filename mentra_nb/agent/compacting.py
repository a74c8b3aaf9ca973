"""How the conversation of a turn is kept within its model's context window.

When a request comes near the window, results of old calls are sent in part; if that frees too little, a model writes a
summary, which is sent in place of all but the newest entries. Nothing is deleted, and between two such moments the
beginning of the requests stays the same, so that providers can cache it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from mentra_nb.agent.aside import answer_aside
from mentra_nb.agent.request import assemble
from mentra_nb.agent.retrying import wait_before_retry
from mentra_nb.agent.turn import Turn
from mentra_nb.compaction import facts, shrink
from mentra_nb.compaction.entry import KIND, Carried, summary_message
from mentra_nb.compaction.summary import SYSTEM, Summary, parsed, prompt_for, rendered
from mentra_nb.compaction.tokens import Room, of_message, of_text, of_tools, room_in
from mentra_nb.compaction.window import known_window, learn_window, window_in, window_of
from mentra_nb.content import Message
from mentra_nb.errors import ModelBudgetExceeded, ProviderError, StoreError
from mentra_nb.event import rare
from mentra_nb.providers.base import Request
from mentra_nb.store.records import Entry
from mentra_nb.tools.needed import COMPACT, READ_TOOL_RESULT

log: logging.Logger = logging.getLogger(__name__)

Trigger = Literal["auto", "manual", "overflow"]

ATTEMPTS = 3
"""Requests for one summary, if they fail in a way that may pass."""
LONGEST_SUMMARY = 4_000
"""Tokens of the answer with a summary."""
LEAST_OUTPUT = 256
"""Tokens that an answer is given at least, however full the window is."""
WORTH_WHILE = 10
"""Percent of the usable tokens that shortening results must free, as the provider's cache is lost by it."""
UNKNOWN_SHARE = 60
"""Percent of a refused request that the next one may have, where the window is not known."""
PREVIEW = 200


async def fitted(turn: Turn, request: Request) -> Request:
    """Return a request that fits the context window, if that is known, and note its estimate in the turn."""
    wanted, turn.scheduler.wants_compaction = turn.scheduler.wants_compaction, False
    window = turn.limits.options.context_window or await window_of(turn.provider, turn.model)
    work = Compaction(turn, request, window)
    if wanted:
        await work.summarise("manual")
    elif work.room is not None and work.estimate() > work.room.start:
        await work.make_room(work.room)
    return work.request()


async def compact(turn: Turn, matters: str) -> bool:
    """Send a summary from now on, in which `matters` is kept. Returns whether that was done."""
    await turn.transcript.ready_for((turn.provider, turn.model))
    messages, environment = turn.transcript.messages(), turn.environment
    request = assemble(turn.model, turn.config, messages, environment, turn.scheduler.toolbox)
    window = turn.limits.options.context_window or await window_of(turn.provider, turn.model)
    return await Compaction(turn, request, window).summarise("manual", matters)


async def after_refusal(turn: Turn, request: Request, refusal: ProviderError) -> Request | None:
    """Return the request in a shorter form after the provider refused it as too long; `None` if there is none."""
    named = window_in(f"{refusal} {getattr(refusal, 'body', '')}")
    if named is not None:
        learn_window(turn.provider, turn.model, named)
    window = turn.limits.options.context_window or named or known_window(turn.provider, turn.model)
    work, before = Compaction(turn, request, window), turn.transcript.tokens
    if window is not None and work.estimate() < window:  # our count was too low
        turn.transcript.counted = work.about(), window
    if work.room is None or work.estimate() <= work.room.usable:
        work.room = room_in(work.estimate() * UNKNOWN_SHARE // 100, None)
    await work.summarise("overflow")
    again = work.request()
    fits = window is not None and work.estimate() + LEAST_OUTPUT <= window  # then its answer had no room
    is_shorter = fits and (again.max_output_tokens or 0) < (request.max_output_tokens or 0)
    return again if is_shorter or turn.transcript.tokens < before else None


class Compaction:
    """Makes the conversation of a turn shorter. `room` is `None` while the context window is not known."""

    def __init__(self, turn: Turn, request: Request, window: int | None) -> None:
        self.turn = turn
        self.window = window
        self.room: Room | None = room_in(window, request.max_output_tokens) if window is not None else None
        self._request = request
        self._head = of_text(request.system or "") + of_tools(request.tools)
        self._is_changed = False

    def about(self) -> int:
        """Return the tokens of the request by our own count."""
        aside = self.turn.transcript.aside
        return self._head + self.turn.transcript.tokens + (of_message(aside) if aside is not None else 0)

    def estimate(self) -> int:
        """Return the tokens of the request: our own count, corrected as the provider counted the last one."""
        if (counted := self.turn.transcript.counted) is None:
            return self.about()
        ours, theirs = counted
        return int(self.about() * min(3.0, max(theirs / ours, 1 / 3)))

    def request(self) -> Request:
        """Return the request, with what is now sent of the conversation and no more output than there is room for."""
        turn, request = self.turn, self._request
        if self._is_changed:
            request = assemble(
                request.model, turn.config, turn.transcript.messages(), turn.environment, turn.scheduler.toolbox
            )
        turn.about = self.about()
        if self.window is not None and (most := request.max_output_tokens) is not None:
            left = max(LEAST_OUTPUT, self.window - self.estimate())
            request = replace(request, max_output_tokens=min(most, left))
        return request

    async def make_room(self, room: Room) -> None:
        """Send old results in part, or if that does not free enough, a summary; where that fails, what still can be."""
        if await self._shorten_old(room, enough=True):
            return
        if self.estimate() > self.turn.transcript.quiet and await self.summarise("auto"):
            return
        await self._shorten_old(room)
        if self.estimate() > room.usable:
            await self._stand_in("auto")
        if self.estimate() > room.usable:
            self._shorten(len(self.turn.transcript.tail))

    async def summarise(self, trigger: Trigger, matters: str = "") -> bool:
        """Send a summary in place of all but the newest entries. Returns whether that was done.

        If no model can write one, the conversation is left as it is while it fits; else what can be told without a
        model is sent in place of the entries.
        """
        replaced, keeps = await self._split()
        if not replaced:
            if trigger == "manual":
                self._skipped(trigger, "nothing older than the newest message is there to summarise")
            return False
        self._proposed(trigger)
        carried = facts.carried_before(replaced)
        if matters:
            carried = carried._replace(matters=(*carried.matters, matters))
        try:
            summary = await self._ask(replaced, carried)
        except Exception as error:  # noqa: BLE001  # whatever went wrong, the turn goes on without a summary
            self.turn.transcript.quiet = self.estimate() * 11 // 10
            self._skipped(trigger, f"the summary failed: {error}")
            if trigger == "overflow":
                await self._stand_in(trigger)
            return False
        await self._apply(trigger, summary, carried, replaced, keeps)
        return True

    # ---- what is left out -------------------------------------------------------------------------------------

    async def _shorten_old(self, room: Room, *, enough: bool = False) -> bool:
        """Send the results of all but the newest rounds in part, and return whether that was done.

        It is not where it frees too little to lose the provider's cache for it; with `enough`, too little to reach the
        goal.
        """
        transcript, before = self.turn.transcript, self.about()
        await transcript.load()
        messages = [entry.message for entry in transcript.tail]
        count = shrink.old_count(messages)
        freed = sum(of_message(old) - of_message(new) for old in messages[:count] if (new := shrink.shorter(old)))
        left = self.estimate() * (before - freed) // before
        if freed * 100 < WORTH_WHILE * room.usable or (enough and left > room.goal):
            return False
        self._shorten(count)
        await self._changed()
        self._applied("auto", "shortened", before, replaced_items=count)
        return True

    def _shorten(self, count: int) -> None:
        self.turn.transcript.shorten(count)
        self._is_changed = True

    async def _split(self) -> tuple[Sequence[Entry], int]:
        """Return the entries to summarise, none if that would free nothing, and how many at the end stay.

        Those are whole rounds that fit their share of the window, at least the newest one.
        """
        await self.turn.transcript.load()
        entries = self.turn.transcript.tail
        most = self.turn.transcript.tokens // 4
        if self.room is not None:
            most = min(most, self.room.share(25))
        keeps, tokens = 0, 0
        for at in range(len(entries) - 1, facts.kept_by_summary(entries) - 1, -1):
            tokens += of_message(entries[at].message)
            if keeps and tokens > most:
                break
            if not entries[at].message.tool_results():  # else the calls it answers come before it
                keeps = len(entries) - at
        replaced = entries[: len(entries) - keeps]
        is_worth_while = any(entry.kind not in (KIND, "user_turn") for entry in replaced)
        return (replaced if is_worth_while else ()), keeps

    async def _ask(self, replaced: Sequence[Entry], carried: Carried) -> Summary:
        """Return what the model of the turn makes of entries."""
        turn = self.turn
        usable = self.room.usable if self.room is not None else self.about()
        output = min(LONGEST_SUMMARY, max(LEAST_OUTPUT, usable // 4))
        prompt = prompt_for(replaced, usable - output - of_text(SYSTEM), carried.matters)
        request = Request(turn.model, [Message.user(prompt)], system=SYSTEM, max_output_tokens=output)
        budget = turn.limits.options.model_budget
        for attempt in range(1, ATTEMPTS + 1):
            if budget is not None and turn.limits.spent.requests + 2 > budget:  # the request itself must still be sent
                raise ModelBudgetExceeded(budget)
            try:
                return parsed(await answer_aside(turn, turn.provider, request, "summary", attempt))
            except ProviderError as error:
                if attempt == ATTEMPTS or not error.is_transient:
                    raise
                await wait_before_retry(turn, error, attempt, ATTEMPTS)
        raise AssertionError("unreachable")

    async def _stand_in(self, trigger: Trigger) -> None:
        """Send what is known without a model in place of all but the newest entries."""
        replaced, keeps = await self._split()
        if replaced:
            await self._apply(trigger, None, facts.carried_before(replaced), replaced, keeps)

    async def _apply(
        self, trigger: Trigger, summary: Summary | None, before_it: Carried, replaced: Sequence[Entry], keeps: int
    ) -> None:
        """Store a summary and send it from now on."""
        turn, before, revision = self.turn, self.about(), len(self.turn.transcript)
        transcript, usable = turn.transcript, self.room.usable if self.room is not None else before
        carried = facts.carried(replaced, before_it, summary, usable)
        text, pictures = rendered(carried, await self._open_tasks(usable)), facts.newest_pictures(replaced)
        turn.owed.append(transcript.compact(summary_message(text, keeps, carried, pictures), keeps, turn.id))
        await turn.store_owed()
        await self._changed()
        if self.estimate() > usable:
            self._shorten(1 + keeps)
        await self._remember(text, revision)
        mode: Literal["summary", "without_model"] = "without_model" if summary is None else "summary"
        self._applied(
            trigger,
            mode,
            before,
            base_revision=revision,
            replaced_items=len(replaced),
            preserved_items=keeps,
            extracted_facts_count=len(carried.files) + len(carried.decisions),
            summary_preview=text[:PREVIEW],
        )

    async def _open_tasks(self, usable: int) -> tuple[str, ...]:
        """Return a line for each task of the agent's board that is not completed, within a share of the tokens."""
        turn = self.turn
        tasks = await turn.environment.store.load_tasks(turn.config.task_board or turn.agent_id)
        lines = [f"{each.id}. {each.subject} ({each.status})" for each in tasks if each.status != "completed"]
        return facts.newest(lines, usable * 5 // 100)

    async def _remember(self, text: str, revision: int) -> None:
        """Store a summary as a memory, so that a search finds it."""
        from mentra_nb.store.work_records import MemoryRecord

        id = self.turn.agent_id
        record = MemoryRecord(
            record_id=f"summary:{id}:{revision}",
            agent_id=id,
            kind="summary",
            content=text,
            source_revision=revision,
            created_at=time.time(),
            source="auto_compaction",
            made_by=id,
            run_id=self.turn.id,
        )
        try:
            await self.turn.environment.store.save_memories([record])
        except StoreError:
            log.exception("the summary of %s could not be stored as a memory", id)

    async def _changed(self) -> None:
        """Note that another beginning is sent from now on, and offer what is of use in a long conversation."""
        self._is_changed = True
        await self.turn.scheduler.toolbox.load([COMPACT, READ_TOOL_RESULT])

    # ---- what is recorded -------------------------------------------------------------------------------------

    def _about(self, trigger: Trigger) -> dict[str, Any]:
        turn = self.turn
        return {
            "agent_id": turn.agent_id,
            "run_id": turn.id,
            "base_revision": len(turn.transcript),
            "trigger": trigger,
        }

    def _proposed(self, trigger: Trigger) -> None:
        where = f"store:{self.turn.agent_id}/{self.turn.transcript.leaf}"
        window = self.room.window if self.room is not None else None
        self.turn.emit(
            rare.MemoryCompactionProposed(
                **self._about(trigger), transcript_path=where, tokens=self.estimate(), window=window
            )
        )

    def _applied(
        self,
        trigger: Trigger,
        mode: Literal["summary", "without_model", "shortened"],
        before: int,
        **about: Any,
    ) -> None:
        self.turn.emit(
            rare.MemoryCompactionApplied(
                **{**self._about(trigger), **about},
                mode=mode,
                resulting_history_len=len(self.turn.transcript.messages()),
                tokens_before=before,
                tokens_after=self.about(),
            )
        )

    def _skipped(self, trigger: Trigger, reason: str) -> None:
        self.turn.emit(rare.MemoryCompactionSkipped(**self._about(trigger), reason=reason))
