"""What a map over rows stores of each answer, and the operations on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class RowAnswer(NamedTuple):
    """The answer to the prompt of one row."""

    digest: str
    """Of all that decides the answer: provider, model, prompt, values, schema and options."""
    prompt: str
    """The digest of the prompt before values were filled in."""
    model: str
    """As `provider/model`."""
    answer: str
    """What the model answered: text, or JSON where the answer has a type."""
    answered_at: float
    """Unix seconds."""


class RowAnswerStore(Protocol):
    """Answers of rows, by digest."""

    async def load_row_answers(self, digests: Sequence[str]) -> dict[str, str]:
        """Return the stored answers among these digests."""
        ...

    async def save_row_answers(self, answers: Sequence[RowAnswer]) -> None:
        """Store answers, in place of older ones with the same digests."""
        ...

    async def forget_row_answers(self, prompt: str | None = None, model: str | None = None) -> int:
        """Delete the answers with this digest of a prompt and of this model, or all. Return how many those were."""
        ...
