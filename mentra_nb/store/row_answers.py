"""What a map over rows stores of each answer and of each batch under way, and the operations on it."""

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


class RowBatch(NamedTuple):
    """Rows that were handed to a provider as one batch, and whose results are not all stored yet."""

    key: str
    """Our id of it, which the provider is told too where it keeps one."""
    model: str
    """As `provider/model`."""
    digests: list[str]
    """Of its rows, in the order in which they were handed over."""
    made_at: float
    """Unix seconds; before it was handed over."""
    provider_batch: str | None = None
    """The provider's id of it; `None` while it is not known whether the provider has it."""
    reservation: str | None = None
    """What is reserved for it, which lasts as long as it is stored, also when its process dies."""


class RowAnswerStore(Protocol):
    """Answers of rows by digest, and batches of rows under way."""

    async def load_row_answers(self, digests: Sequence[str]) -> dict[str, str]:
        """Return the stored answers among these digests."""
        ...

    async def save_row_answers(self, answers: Sequence[RowAnswer]) -> None:
        """Store answers, in place of older ones with the same digests."""
        ...

    async def forget_row_answers(self, prompt: str | None = None, model: str | None = None) -> int:
        """Delete the answers with this digest of a prompt and of this model, or all. Return how many those were."""
        ...

    async def save_row_batch(self, batch: RowBatch) -> None:
        """Store a batch, in place of the one with its key. It survives a power cut."""
        ...

    async def load_row_batches(self, model: str) -> list[RowBatch]:
        """Return the batches of a model that are under way, oldest first."""
        ...

    async def delete_row_batch(self, key: str) -> None:
        """Forget a batch, once its results are stored or it turned out that there is none."""
        ...
