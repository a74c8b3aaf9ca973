"""What is left of one rate limit of a provider, between two answers that say it."""

from __future__ import annotations

import math

from mentra_nb.providers.limits import Allowance


class Bucket:
    """An amount that fills steadily, and of which each request takes a share. It is full until an answer says less."""

    def __init__(self, each: float = 0.0) -> None:
        """Take what one request takes: 1 if requests are counted, 0 for what is learnt from the answers."""
        self.each = each
        self._learns = not each
        self._told: Allowance | None = None
        self._told_by = 0
        self._left = math.inf
        self._at = 0.0

    def report(self, told: Allowance, number: int, sent: int, now: float) -> None:
        """Take what the answer to one request says is left.

        Args:
            told: What is left, as the server saw it.
            number: The number of that request; an answer to an earlier one than the last is older news.
            sent: The number of the last request, up to which none may be counted yet.
            now: By `time.monotonic`.
        """
        if number <= self._told_by:
            return
        if self._told is not None and self._learns:
            before = min(self._told.limit or math.inf, self._told.left + self._told.per_second * (now - self._at))
            share = max(0.0, (before - told.left) / (number - self._told_by))
            self.each = (self.each + share) / 2 if self.each else share
        self._told, self._told_by, self._at = told, number, now
        self._left = told.left - (sent - number) * self.each

    def take(self) -> None:
        """Take the share of one request."""
        self._left -= self.each

    def wait(self, now: float) -> float:
        """Return the seconds until the share of one request is there."""
        told = self._told
        if told is None or not told.full_in:
            return 0.0
        full_in = told.full_in - (now - self._at)
        lacks = min(self.each, told.limit or self.each) - self._left - told.per_second * (now - self._at)
        if full_in <= 0 or lacks <= 0:
            return 0.0
        return min(full_in, lacks / told.per_second) if told.per_second else full_in
