"""Which batches a provider has."""

from __future__ import annotations

from mentra_nb.providers.anthropic_batches import AnthropicBatches
from mentra_nb.providers.base import Provider
from mentra_nb.providers.batch import Batches
from mentra_nb.providers.gemini_batches import GeminiBatches
from mentra_nb.providers.http import HttpxTransport
from mentra_nb.providers.openai_batches import OpenAIBatches
from mentra_nb.providers.wire import WireProvider


def batches_of(provider: Provider) -> Batches | None:
    """Return the batches of a provider, or `None` if it has none: a model in this process, or answers from a tape.

    Whether a server has them is known once it is asked.
    """
    if not isinstance(provider, WireProvider) or not isinstance(provider.http.transport, HttpxTransport):
        return None
    match provider.wire:
        case "responses" | "chat_completions":
            return OpenAIBatches(provider)
        case "anthropic_messages":
            return AnthropicBatches(provider)
        case "gemini_generate_content":
            return GeminiBatches(provider)
    return None
