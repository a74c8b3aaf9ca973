"""What the answers of a turn have used, counted against its limits."""

from __future__ import annotations

from mentra_nb.agent.turn import Turn
from mentra_nb.content import TokenUsage
from mentra_nb.errors import ConfigurationError


def count_usage(turn: Turn, provider: str, model: str, usage: TokenUsage) -> None:
    """Count the tokens and the cost of an answer against the budgets."""
    tokens = (usage.input_tokens or 0) + (usage.output_tokens or 0)
    cost = 0.0
    if turn.limits.options.cost_budget is not None:
        cost = _cost(provider, model, usage) or 0.0
    turn.limits.count_usage(tokens, cost)


def check_priced(provider: str, model: str) -> None:
    """Raise `ConfigurationError` for a model without a known price, since a cost budget cannot limit it."""
    if _cost(provider, model, TokenUsage(input_tokens=1, output_tokens=1)) is None:
        raise ConfigurationError(
            f"{provider}/{model} has no known price, so a cost budget cannot limit it: use token_budget"
        )


def _cost(provider: str, model: str, usage: TokenUsage) -> float | None:
    from mentra_nb.pricing import cost_usd  # loads the price list

    return cost_usd(provider, model, usage)
