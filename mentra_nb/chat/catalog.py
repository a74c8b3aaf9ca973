"""The list of models: all providers are asked at once, and one that fails does not hide the others."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio

from mentra_nb.chat.models import can_chat, open_provider
from mentra_nb.errors import MentraError, TransportError, unlisted
from mentra_nb.providers.base import ModelInfo, Provider
from mentra_nb.providers.nearness import address_of, is_loopback
from mentra_nb.providers.registry import PRESETS
from mentra_nb.runtime.models import newest_first

if TYPE_CHECKING:
    from mentra_nb.chat.engine import Engine

ANSWER_SECONDS = 10.0
"""Seconds that a configured provider has to answer."""
PROBE_SECONDS = 0.3
"""Seconds that a local server has to answer that was not configured; without an answer it is not listed."""


async def catalog(
    engine: Engine, text: str | None = None, all: bool = False, environ: Mapping[str, str] | None = None
) -> tuple[list[ModelInfo], list[str]]:
    """Return the models by provider, newest first, and a line for each provider that did not answer."""
    found: list[ModelInfo] = []
    notes: list[str] = []

    async def ask(provider: Provider, seconds: float, is_probe: bool) -> None:
        id = provider.descriptor.id
        try:
            with anyio.fail_after(seconds):
                models = await provider.list_models()
            engine.listed.update(map(str, models))
            found.extend(models)
        except TimeoutError:
            if not is_probe:
                notes.append(f"{id} is not listed: no answer within {seconds:g} s")
        except MentraError as error:
            if not is_probe:
                notes.append(f"{id} is not listed: {unlisted(error)}")

    async with anyio.create_task_group() as tasks:
        for provider, is_probe in _providers(engine, os.environ if environ is None else environ, notes):
            tasks.start_soon(ask, provider, PROBE_SECONDS if is_probe else ANSWER_SECONDS, is_probe)
    wanted = (text or "").lower()
    shown = [
        model
        for model in found
        if (all or can_chat(model)) and (wanted in str(model).lower() or wanted in (model.display_name or "").lower())
    ]
    return sorted(shown, key=newest_first), sorted(notes)


async def models_of(engine: Engine, provider: str) -> list[str]:
    """Return the names of a provider's models, for completion: those listed so far.

    If none were and its server is on this machine, the server is asked, for at most `PROBE_SECONDS`.
    """
    prefix = f"{provider}/"
    if not any(name.startswith(prefix) for name in engine.listed):
        with suppress(MentraError), anyio.move_on_after(PROBE_SECONDS):
            made = _opened(engine, provider)
            if is_loopback(address_of(made)):
                engine.listed.update(map(str, await made.list_models()))
    return sorted(name for name in engine.listed if name.startswith(prefix))


async def answers(engine: Engine, provider: str) -> bool | None:
    """Return whether the provider's server on this machine answers within `PROBE_SECONDS`, in whatever way.

    `None` if its server is elsewhere or it has none; then nothing is sent.
    """
    try:
        made = _opened(engine, provider)
    except MentraError:  # such as that its key is missing
        return None
    if not is_loopback(address_of(made)):
        return None
    try:
        with anyio.fail_after(PROBE_SECONDS):
            engine.listed.update(map(str, await made.list_models()))
    except (TimeoutError, TransportError):
        return False
    except MentraError:  # such as that it lists no models
        return True
    return True


def _opened(engine: Engine, provider: str) -> Provider:
    """Return a provider, made without its key if it is not registered."""
    if provider in engine.registered():
        return engine.runtime.provider(provider)
    return open_provider(provider, engine.settings, {}, engine.runtime.http)


def _providers(engine: Engine, environ: Mapping[str, str], notes: list[str]) -> list[tuple[Provider, bool]]:
    """Return each provider once, and whether it is only probed because it might run on this machine."""
    registered, settings = engine.registered(), engine.settings
    asked = [(engine.runtime.provider(id), False) for id in sorted(registered)]
    keyed = {preset.id for preset in PRESETS.values() if preset.key_env and environ.get(preset.key_env)}
    servers = {preset.id for preset in PRESETS.values() if preset.key_env is None}
    for id in sorted({*keyed, *servers, *settings.providers, "demo"} - registered):
        try:
            provider = open_provider(id, settings, environ, engine.runtime.http)
        except MentraError as error:
            notes.append(f"{id} is not listed: {error}")
            continue
        asked.append((provider, id in servers and id not in settings.providers))
    return asked
