"""What a map would ask and cost, before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio.to_thread

from mentra_nb.budget.requests import PER_IMAGE
from mentra_nb.content import Text, TokenUsage
from mentra_nb.errors import MentraError
from mentra_nb.pricing import BATCH_SHARE, cost_usd
from mentra_nb.providers.batches import batches_of
from mentra_nb.rows.digests import digests_of
from mentra_nb.rows.kinds import Kind

if TYPE_CHECKING:
    import pandas as pd

    from mentra_nb.chat.engine import Engine
    from mentra_nb.event.types import TurnOrigin
    from mentra_nb.rows.asking import Asker
    from mentra_nb.rows.job import Job

COLUMNS = ("model", "rows", "requests", "least_tokens", "most_tokens", "least_usd", "most_usd")
SAMPLE = 1_000
"""Prompts that are measured."""
BYTES_PER_TOKEN = 5.0, 3.0
"""For the least and the most tokens of a text."""
PER_PICTURE = 80, PER_IMAGE
"""Tokens of a picture."""
PER_MESSAGE = 4, 12
"""Tokens that a wire adds to a message."""
SHORT, LONG = 2, 500
"""Tokens of a text that is answered, where no answer is known."""
PER_VALUE = 5, 25
"""Tokens of one value in an answer in JSON."""


class Span(NamedTuple):
    """The least and the most of something."""

    least: float
    most: float


async def estimate(job: Job, used: Engine, origin: TurnOrigin) -> pd.DataFrame:
    """Return a row for each model: rows, requests that would be sent, and what they would use. Nothing is sent."""
    import pandas as pd

    rows = []
    for asker in await job.askers(used, origin):
        prompts, digest = job.source.values(asker.template.columns), digests_of(asker)
        digests = await anyio.to_thread.run_sync(list, map(digest, prompts))  # reads files
        by_digest = dict(zip(digests, prompts, strict=True))
        stored = await used.runtime.store.load_row_answers(list(by_digest)) if job.order.cache is True else {}
        asked = [values for key, values in by_digest.items() if key not in stored]
        sent, answered = await _sent(asker, asked), _answered(asker, list(stored.values()))
        of_one = [
            TokenUsage(input_tokens=round(tokens), output_tokens=round(answer))
            for tokens, answer in zip(sent, answered, strict=True)
        ]
        tokens = [len(asked) * round(sum(pair)) for pair in zip(sent, answered, strict=True)]
        costs = [cost_usd(asker.provider.descriptor.id, asker.model, usage) for usage in of_one]
        share = BATCH_SHARE if job.order.batch and batches_of(asker.provider) is not None else 1.0
        usd = [None if cost is None else cost * share * len(asked) for cost in costs]
        rows.append((asker.name, len(prompts), len(asked), *tokens, *usd))
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"least_usd": float, "most_usd": float})
    frame.attrs["mentra_nb"] = True
    return frame


async def _sent(asker: Asker, asked: Sequence[tuple[Any, ...]]) -> Span:
    """Return the tokens of one request, by a sample from all over the frame."""
    sample = asked[:: max(1, len(asked) // SAMPLE)]
    if not sample:
        return Span(0, 0)
    names = asker.template.columns
    filled = [await _measured(asker, dict(zip(names, values, strict=True))) for values in sample]
    request = asker.request("")
    fixed = sum(len(message.text().encode()) for message in request.messages) + len((request.system or "").encode())
    if request.response_format is not None:
        fixed += len(str(request.response_format.schema).encode())
    size, pictures = fixed + mean(text for text, _ in filled), mean(images for _, images in filled)
    messages = len(request.messages) + (request.system is not None)
    by_kind = zip(BYTES_PER_TOKEN, PER_MESSAGE, PER_PICTURE, strict=True)
    return Span(*(size / by + each * messages + picture * pictures for by, each, picture in by_kind))


async def _measured(asker: Asker, values: Mapping[str, Any]) -> tuple[int, int]:
    """Return the bytes of text and the number of pictures of a prompt. One that cannot be sent has none of both."""
    try:
        prompt = await asker.prompt(values)
    except MentraError:
        return 0, 0
    if isinstance(prompt, str):
        return len(prompt.encode("utf-8", "replace")), 0
    texts = [block.text for block in prompt if isinstance(block, Text)]
    return sum(len(text.encode("utf-8", "replace")) for text in texts), len(prompt) - len(texts)


def _answered(asker: Asker, stored: Sequence[str]) -> Span:
    """Return the tokens of one answer: by the shorter and the longer half of stored ones, or by the type."""
    if len(stored) >= 2:
        sizes = sorted(len(text.encode("utf-8", "replace")) for text in stored)
        half = len(sizes) // 2
        least, most = (mean(part) / by for part, by in zip((sizes[:half], sizes[half:]), BYTES_PER_TOKEN, strict=True))
        return Span(max(1, least), max(1, most))
    if asker.shape.is_text:
        return Span(SHORT, LONG)
    values = sum(_values(kind) for kind in asker.shape.columns.values())
    texts = sum(kind.word == "text" for kind in asker.shape.columns.values())
    return Span(values * PER_VALUE[0], values * PER_VALUE[1] + texts * LONG / 5)


def _values(kind: Kind) -> int:
    return sum(_values(part) for _, part in kind.parts) * (3 if kind.word == "list" else 1) or 1
