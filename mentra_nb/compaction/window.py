"""The context window of a model: what the list of prices or its provider tells, and what a refusal has told."""

from __future__ import annotations

import re
from weakref import WeakKeyDictionary

import anyio

from mentra_nb.providers.base import ModelInfo, Provider
from mentra_nb.secrets.late import late

ANSWER_SECONDS = 5.0
"""Seconds that a provider has to list its models."""
SMALLEST = 512
"""Tokens. A smaller number in a refusal is something else."""

_NAMED = late(
    r"context (?:length|window|size|of the local model)\D{0,40}?(\d[\d,]{2,})|n_ctx\W{0,4}(\d[\d,]{2,})"
    r"|> ?(\d[\d,]{2,}) maximum"
    r"|maximum (?:number of tokens|context length)\D{0,30}(\d[\d,]{2,})",
    re.IGNORECASE,
)
_windows: WeakKeyDictionary[Provider, dict[str, int | None]] = WeakKeyDictionary()


async def window_of(provider: Provider, model: str) -> int | None:
    """Return the context window of a model in tokens, `None` if it is not known.

    A provider is asked once for each model of which the list of prices does not tell. A server with only one model is
    taken at that one's, whatever the name by which it was addressed.
    """
    known = _windows.setdefault(provider, {})
    if model not in known:
        from mentra_nb.pricing import context_window

        known[model] = None
        try:
            known[model] = context_window(str(ModelInfo(id=model, provider=provider.descriptor.id)))
            if known[model] is not None:
                return known[model]
            with anyio.move_on_after(ANSWER_SECONDS):
                models = await provider.list_models()
                found = [each for each in models if each.id == model] or (models if len(models) == 1 else [])
                known[model] = found[0].context_window if found else None
        except Exception:  # noqa: BLE001  # such as that it lists no models; the turn goes on without
            return known[model]
    return known[model]


def known_window(provider: Provider, model: str) -> int | None:
    """Return what `window_of` has found out before."""
    return _windows.get(provider, {}).get(model)


def learn_window(provider: Provider, model: str, window: int) -> None:
    """Remember the context window of a model, unless a smaller one is known."""
    known = _windows.setdefault(provider, {})
    known[model] = min(window, known.get(model) or window)


def window_in(refusal: str) -> int | None:
    """Return the context window that a server names when it refuses a request that is too long.

    Example:
        >>> window_in("This model's maximum context length is 8,192 tokens, however you requested 9000 tokens.")
        8192
        >>> window_in("prompt is too long: 213221 tokens > 200000 maximum")
        200000
    """
    for found in _NAMED.finditer(refusal):
        number = int(next(filter(None, found.groups())).replace(",", ""))
        if number >= SMALLEST:
            return number
    return None
