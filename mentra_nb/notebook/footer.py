"""The last line of a turn: its model, tokens, cost and time, and how much of the model's context is filled."""

from __future__ import annotations

from mentra_nb.content import TokenUsage

SMALLEST_SHARE = 0.01
"""Share of a context below which it is not said how much of it is filled."""


def footer(
    model: str, usage: TokenUsage, last: TokenUsage, *, cost: float | None, seconds: float | None, timed: bool
) -> str:
    """Return the line as text.

    Args:
        model: The model, as `provider/name`; it may be empty.
        usage: The tokens of the turn.
        last: The tokens of its last response.
        cost: In US dollars.
        seconds: How long the turn took.
        timed: Whether to say what differs each time that the same question is asked.
    """
    parts = [model]
    if not usage.is_empty():
        prompt, cached = _prompt(model, usage), usage.cache_read_input_tokens
        share = f" ({cached / prompt:.0%} cached)".replace("%", " %") if timed and cached and prompt else ""
        parts.append(f"{_count(prompt)} in{share} / {_count(usage.output_tokens)} out")
    if timed:
        parts += [_context(model, last), _price(cost), "" if seconds is None else f"{seconds:.1f} s"]
    return " · ".join(filter(None, parts))


def _prompt(model: str, usage: TokenUsage) -> int | None:
    """Return the tokens of the prompts, with those that were cached."""
    if usage.input_tokens is None or not model.startswith("anthropic/"):
        return usage.input_tokens
    return usage.input_tokens + (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)


def _context(model: str, last: TokenUsage) -> str:
    """Return how much of the model's context the conversation fills; empty if its size is unknown, or for little."""
    from mentra_nb.pricing import context_window

    window = context_window(model) if last.input_tokens else None
    if window is None:
        return ""
    share = ((_prompt(model, last) or 0) + (last.output_tokens or 0)) / window
    return f"context {100 * share:.0f} % full" if share >= SMALLEST_SHARE else ""


def _count(tokens: int | None) -> str:
    if tokens is None:
        return "?"
    return str(tokens) if tokens < 1000 else f"{tokens / 1000:.1f}k" if tokens < 999_950 else f"{tokens / 1e6:.1f}M"


def _price(cost: float | None) -> str:
    """Return what a turn cost: nothing if no price is known, or for a model that runs here."""
    if not cost:
        return ""
    return (
        f"${cost:.2f}" if cost >= 1 else f"${cost:.4f}".rstrip("0").rstrip(".") if cost >= 0.0001 else "under $0.0001"
    )
