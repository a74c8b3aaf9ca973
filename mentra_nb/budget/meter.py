"""The budgets of one turn: each request and each round of calls reserves its share before it begins.

    reservation = await meter.reserve({"usd": 12_000_000, "tokens": 4_000})
    ...                                             # send the request
    await reservation.settle({"usd": 3_100_000, "tokens": 900})

Amounts are in parts of a unit (`amounts.PARTS`). What is spent and what is reserved never exceed a limit together, over
all processes of one home. Where a limit is reached, a person may raise it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Any

import anyio

from mentra_nb.amounts import PARTS, PERIODS, Amount, Period, Unit, amounts, rounded, written
from mentra_nb.errors import BudgetSpent
from mentra_nb.forms import Form, FormField
from mentra_nb.ids import new_id
from mentra_nb.store.protocols import BudgetStore
from mentra_nb.store.records import BudgetClaim, BudgetCount, LeaseHolder

Ask = Callable[[Form], Awaitable[dict[str, Any] | None]]
"""Asks a person and returns what was filled in; `None` if nobody was there, or they declined."""

NAMES: dict[Period, str] = {
    "turn": "this turn",
    "session": "this conversation",
    "day": "today",
    "project": "this project",
    "month": "this month",
}
_MORE = {"usd": "More, in usd", "tokens": "More tokens", "calls": "More tool calls", "minutes": "More minutes"}
MOST_MORE = 10**6
"""The most, in its unit, by which one answer raises a limit, unless more is needed."""
_NEEDS = {
    "usd": "the next request may cost up to {}",
    "tokens": "the next request may take up to {}",
    "calls": "the model asks for {}",
    "minutes": "the next step needs more",
}


def key_now(period: Period, keys: Mapping[Period, str], whose: str = "") -> str:
    """Return which turn, session or project it is, by `keys`, or which day or month now, in local time.

    In a store that several people share, a day or month is that of one of them, and ends with their name.
    """
    match period:
        case "day":
            return f"{time.strftime('%Y-%m-%d')} {whose}".rstrip()
        case "month":
            return f"{time.strftime('%Y-%m')} {whose}".rstrip()
    return keys[period]


class Meter:
    """Reserves for the requests and calls of one turn, its subagents included, or of one batch of requests.

    Must be used from one event loop only.
    """

    def __init__(
        self,
        store: BudgetStore,
        holder: LeaseHolder,
        budgets: Mapping[Period, str],
        keys: Mapping[Period, str],
        ask: Ask | None = None,
    ) -> None:
        """Take budgets such as `{"day": "2usd"}`; `keys` has the ids of the turn, the session and the project.

        Raises:
            ConfigurationError: a budget is not an amount.
        """
        self._store, self._holder, self._keys, self._ask = store, holder, keys, ask
        self._limits: list[tuple[Period, Amount]] = [
            (period, amount) for period in PERIODS for amount in amounts(budgets.get(period) or "")
        ]
        self._open = 0
        self._settled = anyio.Event()
        self._asking = anyio.Lock()
        self._raised = 0
        self.ended: BudgetSpent | None = None
        """Why nothing more is reserved, once a limit was reached and not raised."""

    def limits(self, unit: Unit) -> bool:
        """Return whether any budget is in this unit."""
        return any(amount.unit == unit for _, amount in self._limits)

    async def reserve(self, most: Mapping[Unit, int]) -> Reservation:
        """Reserve the most that a request may use, by unit. Waits while only requests of this meter are in the way.

        Raises:
            BudgetSpent: it does not fit, and nobody raised the limit. So is every later call refused.
            StoreError: the store failed; nothing may be sent.
        """
        while True:
            if self.ended is not None:
                raise self.ended
            seen, settled = self._raised, self._settled
            reservation = Reservation(self, new_id("reservation"))
            lacking = await self._try(reservation.id, most)
            if lacking is None:
                self._open += 1
                return reservation
            claim, count = lacking
            if self._open and count.spent + claim.amount <= claim.limit + count.extra:
                await settled.wait()
                continue
            await self._reached(claim, count, seen)

    async def reserve_unasked(self, most: Mapping[Unit, int]) -> Reservation:
        """Reserve as `reserve` does, but without waiting or asking. Raises `BudgetSpent` where it does not fit."""
        if self.ended is not None:
            raise self.ended
        reservation = Reservation(self, new_id("reservation"))
        if (lacking := await self._try(reservation.id, most)) is not None:
            raise BudgetSpent(problem(*lacking))
        self._open += 1
        return reservation

    async def _try(self, reservation_id: str, most: Mapping[Unit, int]) -> tuple[BudgetClaim, BudgetCount] | None:
        whose = self._store.whose
        claims = [
            BudgetClaim(period, key_now(period, self._keys, whose), amount.unit, most[amount.unit], amount.parts)
            for period, amount in self._limits
            if amount.unit in most
        ]
        lacking = None
        with anyio.CancelScope(shield=True):  # a stop in the middle would leave it unknown whether it was reserved
            if claims:
                lacking = await self._store.reserve_budget(reservation_id, self._holder, claims)
        return lacking

    async def _reached(self, claim: BudgetClaim, count: BudgetCount, seen: int) -> None:
        """Let a person raise a limit, or end the meter; one question at a time, and none that is out of date."""
        async with self._asking:
            if seen == self._raised and self.ended is None:
                self._raised += 1
                await self._ask_for_more(claim, count)

    async def _ask_for_more(self, claim: BudgetClaim, count: BudgetCount) -> None:
        if count.reserved and await self._store.settle_left_behind(self._holder):
            count = await self._store.count_budget(claim.period, claim.key, claim.unit)
        why = problem(claim, count)
        values = await self._ask(question(claim, count, why)) if self._ask is not None else None
        if values is None:
            self.ended = BudgetSpent(why)
            return
        more = int(Decimal(str(values["more"])) * PARTS[claim.unit])
        await self._store.extend_budget(claim.period, claim.key, claim.unit, more)

    async def reserve_for_long(self, most: Mapping[Unit, int]) -> str:
        """Reserve as `reserve_unasked` does, and return the id under which any process settles it in the store.

        Nothing waits for it to be settled.
        """
        reservation = await self.reserve_unasked(most)
        self._open -= 1
        return reservation.id

    async def settle(self, reservation_id: str, spent: Mapping[Unit, int] | None) -> None:
        with anyio.CancelScope(shield=True):
            await self._store.settle_budget(reservation_id, spent)
        self._open -= 1
        self._settled.set()
        self._settled = anyio.Event()


class Reservation:
    """A share of the budgets, until it is settled. It counts as spent in full if its process dies first."""

    def __init__(self, meter: Meter, id: str) -> None:
        self._meter, self.id = meter, id
        self._is_open = True

    async def settle(self, spent: Mapping[Unit, int] | None) -> None:
        """Count what was spent, by unit, and give back the rest. `None` counts all of it: what was spent is unknown.

        Later calls do nothing.
        """
        if self._is_open:
            self._is_open = False
            await self._meter.settle(self.id, spent)


def problem(claim: BudgetClaim, count: BudgetCount) -> str:
    """Return in one sentence what of a budget is left, and what is needed."""
    unit = claim.unit
    limit = claim.limit + count.extra
    left = max(limit - count.spent - count.reserved, 0)
    held = f" ({written(unit, count.reserved)} reserved for requests under way)" if count.reserved else ""
    needs = _NEEDS[unit].format(written(unit, claim.amount, up=True))
    what = f"the budget of {NAMES[claim.period]}, {written(unit, limit)}, has {written(unit, left)} left{held}"
    return f"{what}, and {needs}"


def question(claim: BudgetClaim, count: BudgetCount, why: str) -> Form:
    """Return the question whether to go on with more."""
    unit = claim.unit
    needed = claim.amount - (claim.limit + count.extra - count.spent - count.reserved)
    least = rounded(unit, needed, up=True)
    more = FormField(
        name="more",
        title=_MORE[unit],
        kind="number" if unit in ("usd", "minutes") else "integer",
        required=True,
        default=max(least, rounded(unit, claim.limit // 4, up=True)),
        least=least,
        most=max(least, MOST_MORE),
    )
    message = f"{why[0].upper()}{why[1:]}. Go on with more?"
    return Form(who="mentra", message=message, fields=(more,), yes="Go on", no="Stop here")
