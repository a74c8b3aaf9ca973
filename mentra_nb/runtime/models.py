"""The models that a provider lists, and the newest of them."""

from __future__ import annotations

from collections.abc import Iterable

from mentra_nb.errors import FailedToListModels, NoModelsAvailable, ProviderError
from mentra_nb.providers.base import ModelInfo, ModelSelector, Provider


async def listed(provider: Provider) -> list[ModelInfo]:
    """Return the models a provider lists. Raises `FailedToListModels`."""
    try:
        return await provider.list_models()
    except ProviderError as error:
        raise FailedToListModels(error) from error


def newest(provider_id: str, models: Iterable[ModelInfo]) -> ModelInfo:
    """Return the newest model (ties by id). Raises `NoModelsAvailable` if there is none."""
    found = min(models, key=newest_first, default=None)
    if found is None:
        raise NoModelsAvailable(provider_id)
    return found


def newest_first(model: ModelInfo) -> tuple[str, float, str]:
    """Sort key: by provider, then newest first, then by id. A model without a date comes last."""
    return model.provider, -(model.created_at.timestamp() if model.created_at else float("-inf")), model.id


async def resolved(provider: Provider, selector: ModelSelector | str) -> ModelInfo:
    """Return the model of an explicit id, without asking; else the newest listed (ties by id).

    Raises:
        FailedToListModels, NoModelsAvailable
    """
    provider_id = provider.descriptor.id
    wanted = selector if isinstance(selector, str) else selector.id
    if wanted is not None:
        return ModelInfo(id=wanted, provider=provider_id)
    return newest(provider_id, await listed(provider))
