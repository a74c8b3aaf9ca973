"""How many requests go out at once: halved by a refusal, then slowly more, and no place is lost."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest
from kits.row_models import RowModel

import mentra_nb as mn
from mentra_nb.errors import HttpError, TransportError
from mentra_nb.providers import scripted
from mentra_nb.providers.base import MessageStarted, ProviderEvent, Request
from mentra_nb.providers.limits import Allowance, RateLimits
from mentra_nb.rows.bucket import Bucket
from mentra_nb.rows.pace import KNOWN, Pace, pace_of

pytestmark = pytest.mark.anyio


async def test_there_is_no_limit_before_the_first_refusal() -> None:
    pace = Pace()
    async with anyio.create_task_group() as group:
        done = anyio.Event()

        async def one() -> None:
            async with pace.one():
                await done.wait()

        for _ in range(500):
            group.start_soon(one)
        await anyio.wait_all_tasks_blocked()
        assert pace.under_way == 500
        done.set()
    assert pace.under_way == 0


async def test_a_refusal_halves_once_for_all_that_were_under_way_and_answers_add_one_a_round() -> None:
    pace = Pace()
    began = time.monotonic()
    pace.under_way = 16
    pace.refused(began, 0)
    assert pace.most == 8
    for _ in range(10):
        pace.refused(began, 0)
    assert pace.most == 8
    for _ in range(8):
        pace.answered(0.1)
    assert 8.9 < pace.most < 9.1
    pace.under_way = 1
    pace.refused(time.monotonic(), 0)
    assert pace.most == 1


async def test_requests_wait_for_their_place_in_order_and_no_more_than_allowed_are_under_way() -> None:
    pace, seen, highest = Pace(), list[int](), 0
    pace.most = 3.0

    async def one(number: int) -> None:
        nonlocal highest
        async with pace.one():
            highest = max(highest, pace.under_way)
            seen.append(number)
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(one, number)
    assert (highest, sorted(seen), pace.under_way) == (3, list(range(50)), 0)


async def test_the_place_of_one_that_is_cancelled_goes_to_another() -> None:
    pace = Pace()
    pace.most = 1.0
    got = list[str]()

    async def one(name: str) -> None:
        async with pace.one():
            got.append(name)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group, pace.one():
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as inner:
                    inner.start_soon(one, "cancelled")
                    await anyio.wait_all_tasks_blocked()
                    group.start_soon(one, "other")
                    await anyio.wait_all_tasks_blocked()
                    scope.cancel()
    assert got == ["other"]


async def test_nothing_is_sent_before_the_time_that_the_server_asked_for() -> None:
    pace = Pace()
    pace.refused(time.monotonic(), 0.1)
    began = time.monotonic()
    async with pace.one():
        assert time.monotonic() - began >= 0.09


async def test_what_is_under_way_gets_a_limit_once_it_is_known_how_long_answers_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mentra_nb.rows.pace.LEAST_PATIENCE", 0.05)
    pace, raised = Pace(), list[str]()

    async def silent() -> None:
        try:
            with pace.patience(1):
                await anyio.sleep_forever()
        except TransportError as error:
            raised.append(str(error))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(silent)
            await anyio.wait_all_tasks_blocked()
            for _ in range(KNOWN):
                pace.answered(0.001)
            group.start_soon(silent)
    assert raised == ["no answer came within 0 s"] * 2


async def test_a_silent_request_has_a_limit_from_the_first_answer_on() -> None:
    pace = Pace()
    with pace.patience(1):
        assert anyio.current_effective_deadline() == math.inf
        pace.answered(2.0)
        assert round(anyio.current_effective_deadline() - anyio.current_time()) == 60


async def test_patience_grows_with_each_attempt_and_with_the_slowest_answer() -> None:
    pace, limits = Pace(), list[float]()
    for _ in range(KNOWN):
        pace.answered(2.0)
    for attempt in (1, 2, 3):
        with pace.patience(attempt):
            limits.append(round(anyio.current_effective_deadline() - anyio.current_time()))
    assert limits == [20, 40, 80]


async def test_all_maps_of_a_runtime_share_the_pace_of_a_provider() -> None:
    runtime, other = (mn.Runtime(store=mn.VolatileStore(), audit=mn.NullAudit()) for _ in range(2))
    assert pace_of(runtime, "lab") is pace_of(runtime, "lab")
    assert pace_of(runtime, "lab") is not pace_of(runtime, "far")
    assert pace_of(runtime, "lab") is not pace_of(other, "lab")
    await runtime.close()
    await other.close()


# ---- limits that answers tell of ------------------------------------------------------------------------------------


def left(requests: int, full_in: float, limit: int | None = 100, tokens: Allowance | None = None) -> RateLimits:
    return RateLimits(Allowance(requests, limit, full_in), tokens)


async def test_no_more_is_sent_than_the_limit_has_left_though_nothing_was_refused() -> None:
    pace, sent = Pace(), list[int]()
    async with pace.one() as number:
        pace.limited(left(3, 3600.0), number)

    async def one(which: int) -> None:
        async with pace.one():
            sent.append(which)

    async with anyio.create_task_group() as group:
        for which in range(10):
            group.start_soon(one, which)
        await anyio.wait_all_tasks_blocked()
        assert sent == [0, 1, 2]
        group.cancel_scope.cancel()
    assert pace.most == math.inf


async def test_requests_that_the_server_had_not_seen_count_against_what_it_said_was_left() -> None:
    pace = Pace()
    async with pace.one() as first, pace.one(), pace.one():
        pace.limited(left(3, 3600.0), first)
    async with pace.one():
        pass
    with anyio.move_on_after(0.05) as scope:
        async with pace.one():
            raise AssertionError("one more than were left")
    assert scope.cancelled_caught


async def test_a_limit_that_fills_lets_one_after_the_other_go() -> None:
    pace, times = Pace(), list[float]()
    async with pace.one() as number:
        pace.limited(left(0, 1.0, limit=20), number)  # one each 50 ms
    began = time.monotonic()

    async def one() -> None:
        async with pace.one():
            times.append(time.monotonic() - began)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(one)
    assert all(at >= 0.05 * place - 0.005 for place, at in enumerate(times, 1))


async def test_a_later_answer_replaces_an_earlier_one_but_not_the_other_way_round() -> None:
    pace = Pace()
    async with pace.one() as first, pace.one() as second:
        pace.limited(left(50, 3600.0), second)
        pace.limited(left(0, 3600.0), first)
    with anyio.fail_after(60):
        async with pace.one() as third:
            pace.limited(left(90, 3600.0), third)
        async with pace.one():
            pass


def test_what_a_request_takes_of_the_tokens_is_learnt_from_two_answers() -> None:
    bucket = Bucket()
    bucket.report(Allowance(900, 1000, 3600.0), 1, 1, 0.0)
    bucket.report(Allowance(500, 1000, 3600.0), 2, 2, 0.0)
    assert bucket.each == pytest.approx(400)
    bucket.take()
    assert bucket.wait(0.0) == pytest.approx(300 / (500 / 3600.0))
    assert bucket.wait(3600.0) == 0.0


async def test_a_map_slows_down_before_it_is_refused(model: RowModel) -> None:
    """The server allows 40 at once and 200 in each second, says so, and refuses any more."""
    server = _Limited(40, 200.0)
    mn.use(server, "m")
    found = await mn.amap("{value}", [str(number) for number in range(100)], workers=16, progress=False)
    assert found.answer.tolist() == found.value.tolist()
    assert server.refused == 0


class _Limited(RowModel):
    def __init__(self, limit: int, per_second: float) -> None:
        super().__init__(id="limited")
        self.limit, self.per_second = limit, per_second
        self.level, self.at, self.refused = float(limit), time.monotonic(), 0

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[ProviderEvent]]:
        now = time.monotonic()
        self.level = min(self.limit, self.level + (now - self.at) * self.per_second)
        self.at = now
        if self.level < 1:
            self.refused += 1
            raise HttpError(429, "slow", retry_after=0.01)
        self.level -= 1
        allowance = Allowance(int(self.level), self.limit, (self.limit - self.level) / self.per_second)
        await anyio.sleep(0.01)
        text = request.messages[-1].text()
        events = (MessageStarted("1", "m", limits=RateLimits(allowance, None)), *scripted.text(text).events[1:])

        async def given() -> AsyncIterator[ProviderEvent]:
            for event in events:
                yield event

        yield given()
