"""Which model a turn uses: the one named, the setting, the provider of the only key, or the demo."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from mentra_nb.errors import ConfigurationError
from mentra_nb.providers.base import ModelInfo, Provider
from mentra_nb.providers.registry import EMBEDDED, KEYS, PRESETS, Wire, adapter, builtin, split_model
from mentra_nb.runtime.models import newest
from mentra_nb.settings import Endpoint, Settings

if TYPE_CHECKING:
    from mentra_nb.providers.http import HttpClient

DEMO_NOTICE = (
    "No model is set up, so this is the built-in demo. Name one with -m (for example -m ollama/qwen3), "
    f"or set {', '.join(KEYS[:-1])} or {KEYS[-1]}."
)
_REQUESTS: dict[str, Wire] = {
    "/chat/completions": "chat_completions",
    "/messages": "anthropic_messages",
    "/responses": "responses",
}
_GEMINI = re.compile(r"(?P<base>.*)/models/(?P<model>[^/:]+):(?:stream)?generateContent", re.IGNORECASE)
_NOT_CHAT = re.compile(r"embed|whisper|tts|audio|realtime|transcribe|moderation|image|dall-e|sora|rerank|search", re.I)


@dataclass(frozen=True)
class Choice:
    """A provider and one of its models; `model` is `None` for its newest."""

    provider: str
    model: str | None
    notice: str | None = None


def choose(
    name: str | None, settings: Settings, environ: Mapping[str, str], *, registered: Set[str] = frozenset()
) -> Choice:
    """Return the model to use, without a request. Raises `ConfigurationError`, which says what to do."""
    wanted = name or settings.model
    if wanted:
        try:
            return _named(resolve(wanted, settings.aliases), settings, registered)
        except ConfigurationError as error:
            if name:
                raise
            raise ConfigurationError(f"{settings.source('model')}: {error}") from None
    keyed = [preset.id for preset in PRESETS.values() if preset.key_env and environ.get(preset.key_env)]
    if len(keyed) == 1:
        return Choice(keyed[0], None)
    if keyed:
        names = " or ".join(f"-m {provider}/MODEL" for provider in keyed)
        raise ConfigurationError(
            f"there are keys for {' and '.join(keyed)}: say which with {names}, or %config Mentra.model"
        )
    return Choice("demo", "demo", DEMO_NOTICE)


def resolve(name: str, aliases: Mapping[str, str]) -> str:
    """Return the name behind an alias. Raises `ConfigurationError` for circular aliases."""
    seen = [name]
    while name in aliases:
        name = aliases[name]
        if name in seen:
            raise ConfigurationError(f"the aliases go in a circle ({' → '.join([*seen, name])}): change one of them")
        seen.append(name)
    return name


def with_alias(name: str, target: str, settings: Settings, registered: Set[str] = frozenset()) -> dict[str, str]:
    """Return the aliases with one more. Raises `ConfigurationError` if it could not be used."""
    if name in _known(settings, registered) or re.search(r"[/:\s]", name):
        raise ConfigurationError(f"'{name}' cannot be an alias: take one word that is not the name of a provider")
    aliases = {**settings.aliases, name: target}
    _named(resolve(name, aliases), settings, registered)
    return aliases


def known_names(settings: Settings, registered: Set[str] = frozenset()) -> list[str]:
    """Return prefixes of model names and whole names, for completion. Sends nothing."""
    servers = {f"{provider}/" for provider in {*PRESETS, *settings.providers, *registered} - {*EMBEDDED}}
    return sorted([*settings.aliases, *servers, "demo", "local:"])


def _known(settings: Settings, registered: Set[str]) -> set[str]:
    return {*PRESETS, *settings.providers, *registered, *EMBEDDED}


def _named(wanted: str, settings: Settings, registered: Set[str]) -> Choice:
    provider, model = split_model(wanted)
    known = _known(settings, registered)
    if provider is None and model == "local":
        raise ConfigurationError("local needs a model file; write local:/path/model.gguf")
    if provider is None and model in known:  # a provider alone
        return Choice(model, "demo" if model == "demo" else None)
    if provider in known:
        assert provider is not None
        return Choice(provider, model)
    near = get_close_matches(provider or model, {*known, *settings.aliases}, 1, 0.7)
    hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(sorted(known))}"
    if provider is None:
        raise ConfigurationError(
            f"'{wanted}' is not a model name: write provider/model, such as openai/{wanted}; {hint}"
        )
    raise ConfigurationError(f"there is no provider '{provider}'; {hint}")


def open_provider(
    provider: str, settings: Settings, environ: Mapping[str, str], http: Callable[[], HttpClient] | None = None
) -> Provider:
    """Return a provider by name, with its key from the environment, on the client that `http` returns.

    Raises `ConfigurationError` when the key is missing.
    """
    client = http() if http is not None and provider not in EMBEDDED else None
    endpoint = settings.providers.get(provider)
    if endpoint is not None:
        return custom(provider, endpoint, environ.get(endpoint.key_env) if endpoint.key_env else None, client)
    preset = PRESETS.get(provider)
    key = environ.get(preset.key_env) if preset is not None and preset.key_env else None
    return builtin(provider, key, http=client)


@dataclass(frozen=True)
class Address:
    """What a base URL says, which may be the whole address of a request as a manual shows it."""

    base_url: str
    wire: Wire | None = None
    model: str | None = None
    key: str | None = None


def address_in(url: str) -> Address:
    """Take apart a base URL. Names of the other wires' requests at its end stay; their adapters leave them out."""
    url = url.strip()
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    for end, wire in _REQUESTS.items():
        if path.endswith(end):
            return Address(url, wire)
    if (found := _GEMINI.fullmatch(path)) is None:
        return Address(url)
    query = dict(parse_qsl(parts.query))
    key = query.pop("key", None)
    query.pop("alt", None)
    base = urlunsplit(parts._replace(path=found["base"], query=urlencode(query)))
    return Address(base, "gemini_generate_content", found["model"], key)


def custom(name: str, endpoint: Endpoint, api_key: str | None = None, http: HttpClient | None = None) -> Provider:
    """Return a provider for a custom server, on the wire that its URL names if `endpoint` gives none.

    Raises `ConfigurationError` if the name or URL is invalid.
    """
    if name in EMBEDDED or not name or "/" in name:
        raise ConfigurationError(
            f"'{name}' cannot name a server: {', '.join(EMBEDDED)} are built in, and / is not allowed"
        )
    address = address_in(endpoint.base_url)
    if not address.base_url.startswith(("http://", "https://")):
        raise ConfigurationError(f"base_url of '{name}' must begin with http:// or https://, not {endpoint.base_url!r}")
    wire = endpoint.wire if "wire" in endpoint.model_fields_set else address.wire or endpoint.wire
    headers = {header: value.get_secret_value() for header, value in endpoint.headers.items()}
    api_key = api_key or address.key
    if endpoint.auth_header and api_key:
        headers, api_key = headers | {endpoint.auth_header: api_key}, None
    return adapter(wire)(name, address.base_url, api_key=api_key, headers=headers, http=http)


def newest_chat_model(provider: str, models: Sequence[ModelInfo]) -> ModelInfo:
    """Return the newest model that can chat. Raises `NoModelsAvailable`."""
    return newest(provider, filter(can_chat, models))


def can_chat(model: ModelInfo) -> bool:
    """Return whether a model is for conversation, as far as its name tells."""
    return model.provider == "local" or not _NOT_CHAT.search(model.id)
