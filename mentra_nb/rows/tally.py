"""What a map has done so far, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass, field

from mentra_nb.content import TokenUsage
from mentra_nb.rows.asking import Asker, Outcome

Key = tuple[str, str, bool]
"""Provider, model, and whether the usage says what it costs."""


@dataclass
class Tally:
    """What a map has done so far, over all its models."""

    total: int = 0
    """Rows."""
    done: int = 0
    """Rows with an answer."""
    stored: int = 0
    """Of these, rows whose answer was there: stored before, or that of an equal row."""
    failed: int = 0
    requests: int = 0
    usage: dict[Key, TokenUsage] = field(default_factory=dict)
    """Tokens."""
    answers: dict[Key, int] = field(default_factory=dict)
    """Rows that were asked."""
    batches: dict[str, str] = field(default_factory=dict)
    """How far each batch under way is, by its key."""
    note: str | None = None
    """What the person who waits should know."""

    def spend(self, asker: Asker, outcome: Outcome) -> None:
        """Count what was used for a row."""
        key = (asker.provider.descriptor.id, asker.model, outcome.usage.cost_usd is not None)
        self.requests += outcome.requests
        self.usage[key] = self.usage.get(key, TokenUsage()) + outcome.usage
        self.answers[key] = self.answers.get(key, 0) + 1

    def count(self, outcome: Outcome, rows: int) -> None:
        """Count a row that was asked, and the `rows` that are equal to it, itself included."""
        if outcome.error is None:
            self.done += rows
            self.stored += rows - 1
        else:
            self.failed += rows

    def add(self, part: Tally) -> None:
        """Count what was done of a part of the rows, which `total` has already."""
        for name in ("done", "stored", "failed", "requests"):
            setattr(self, name, getattr(self, name) + getattr(part, name))
        self.note = self.note or part.note
        for key, usage in part.usage.items():
            self.usage[key] = self.usage.get(key, TokenUsage()) + usage
            self.answers[key] = self.answers.get(key, 0) + part.answers[key]

    def tokens(self) -> int:
        """Return the tokens of prompts and answers."""
        counted = self.usage.values()
        return sum((u.input_tokens or 0) + (u.output_tokens or 0) + (u.thoughts_tokens or 0) for u in counted)

    def cost_usd(self) -> float | None:
        """Return the cost in US dollars, by the price of an average row; `None` if a price is not known."""
        from mentra_nb.pricing import cost_usd

        total = 0.0
        for key, usage in self.usage.items():
            number = self.answers[key]
            average = {name: value / number for name, value in dict(usage).items() if value is not None}
            if (cost := cost_usd(key[0], key[1], TokenUsage.model_construct(**average))) is None:
                return None
            total += cost * number
        return total

    def summary(self) -> str:
        """Return in one line what was done."""
        parts = [f"{self.done:,} of {self.total:,} rows answered"]
        if self.stored:
            parts.append(f"{self.stored:,} of them without a request")
        if self.failed:
            parts.append(f"{self.failed:,} without an answer")
        parts.append(f"{self.requests:,} request{'s' * (self.requests != 1)}, {self.tokens():,} tokens")
        if (cost := self.cost_usd()) is not None:
            parts.append(f"{cost:.4g} usd")
        if self.note:
            parts.append(self.note)
        return "; ".join(parts)
