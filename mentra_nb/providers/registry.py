"""The registry of a runtime's providers, and presets for well-known ones.

Nothing here reads the environment; keys are passed in.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from pydantic import SecretStr

from mentra_nb.errors import ConfigurationError, ProviderNotFound
from mentra_nb.providers.base import Provider, ProviderCapabilities, ProviderDescriptor

if TYPE_CHECKING:
    from mentra_nb.providers.http import HttpClient
    from mentra_nb.providers.wire import WireProvider

Wire = Literal["responses", "chat_completions", "anthropic_messages", "gemini_generate_content"]

HOSTED = ProviderCapabilities.model_construct(
    supports_images=True,
    supports_reasoning_effort=True,
    supports_structured_output=True,
    supports_hosted_tool_search=True,
)
NO_SEARCH = HOSTED.model_copy(update={"supports_hosted_tool_search": False})


class Preset(NamedTuple):
    """How to reach a provider. `key_env` is the environment variable of its key; `None` means it needs no key."""

    id: str
    display_name: str
    wire: Wire
    base_url: str
    key_env: str | None = None
    capabilities: ProviderCapabilities = HOSTED


PRESETS = {
    preset.id: preset
    for preset in (
        Preset("openai", "OpenAI", "responses", "https://api.openai.com/v1", "OPENAI_API_KEY"),
        Preset("openrouter", "OpenRouter", "responses", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
        Preset("anthropic", "Anthropic", "anthropic_messages", "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
        Preset(
            "gemini",
            "Gemini",
            "gemini_generate_content",
            "https://generativelanguage.googleapis.com/v1beta",
            "GEMINI_API_KEY",
            NO_SEARCH,
        ),
        Preset("ollama", "Ollama", "responses", "http://127.0.0.1:11434/v1", None, NO_SEARCH),
        Preset("lmstudio", "LM Studio", "responses", "http://127.0.0.1:1234/v1", None, NO_SEARCH),
        Preset("llamacpp", "llama.cpp", "chat_completions", "http://127.0.0.1:8080/v1", None, NO_SEARCH),
        Preset("vllm", "vLLM", "chat_completions", "http://127.0.0.1:8000/v1", None, NO_SEARCH),
    )
}


KEYS = tuple(preset.key_env for preset in PRESETS.values() if preset.key_env)
"""The environment variables of all keys."""

EMBEDDED = ("demo", "local")
"""Providers that need neither key nor server."""


def adapter(wire: str) -> type[WireProvider]:
    """Return the provider class of a wire. Raises `ConfigurationError` for an unknown wire."""
    match wire:
        case "responses":
            from mentra_nb.providers.responses import ResponsesProvider

            return ResponsesProvider
        case "chat_completions":
            from mentra_nb.providers.chat_completions import ChatCompletionsProvider

            return ChatCompletionsProvider
        case "anthropic_messages":
            from mentra_nb.providers.anthropic import AnthropicProvider

            return AnthropicProvider
        case "gemini_generate_content":
            from mentra_nb.providers.gemini import GeminiProvider

            return GeminiProvider
    raise ConfigurationError(f"there is no wire '{wire}'; known are {', '.join(get_args(Wire))}")


def builtin(
    id: str,
    api_key: SecretStr | str | None = None,
    base_url: str | None = None,
    *,
    wire: Wire | None = None,
    http: HttpClient | None = None,
) -> Provider:
    """Return the provider of a preset, or `demo` or `local`.

    `base_url` (with or without `/v1`) and `wire` replace the preset's; an Ollama older than 0.13.3 needs
    `wire="chat_completions"`. `http` shares one client between providers. Raises `ConfigurationError` for an unknown
    id and for a missing key.
    """
    if id == "demo":
        from mentra_nb.providers.demo import DemoProvider

        return DemoProvider()
    if id == "local":
        from mentra_nb.providers.local.provider import LocalProvider

        return LocalProvider()
    preset = PRESETS.get(id)
    if preset is None:
        raise ConfigurationError(f"there is no provider '{id}'; known are {', '.join([*PRESETS, *EMBEDDED])}")
    if preset.key_env is not None and api_key is None and base_url is None:
        raise ConfigurationError(f"{preset.display_name} needs an API key: set {preset.key_env} or pass api_key")
    return adapter(wire or preset.wire)(
        preset.id,
        base_url or preset.base_url,
        api_key=api_key,
        display_name=preset.display_name,
        http=http,
        capabilities=preset.capabilities if wire in (None, preset.wire) else None,
    )


def split_model(name: str) -> tuple[str | None, str]:
    """Split `provider/model` at the first slash: `openai/gpt-5` is `("openai", "gpt-5")`, `gpt-5` is `(None, "gpt-5")`.

    `demo` alone is the model of the demo provider, and `local:PATH` a model file. Raises `ConfigurationError` when a
    part is empty.
    """
    provider, is_file, path = name.strip().partition(":")
    if is_file and provider == "local":
        if not path:
            raise ConfigurationError("local: needs a model file; write local:/path/model.gguf")
        return provider, path
    provider, slash, model = name.strip().partition("/")
    if not slash and provider:
        return ("demo" if provider == "demo" else None), provider
    if not provider or not model:
        raise ConfigurationError(f"'{name}' is not a model name; write provider/model, for example openai/gpt-5")
    return provider, model


class ProviderRegistry:
    """The providers of a runtime, by id. The first one registered remains the default."""

    def __init__(self, providers: Iterable[Provider] = ()) -> None:
        self._providers: dict[str, Provider] = {}
        for provider in providers:
            self.register(provider)

    def register(self, provider: Provider) -> None:
        """Add a provider, or replace the one with its id."""
        self._providers[provider.descriptor.id] = provider

    @property
    def default_id(self) -> str | None:
        return next(iter(self._providers), None)

    def get(self, id: str | None = None) -> Provider:
        """Return the provider `id`, or the default. Raises `ProviderNotFound`."""
        wanted = id if id is not None else self.default_id
        if wanted is None or wanted not in self._providers:
            raise ProviderNotFound(wanted, tuple(self._providers))
        return self._providers[wanted]

    def __contains__(self, id: object) -> bool:
        return id in self._providers

    def descriptors(self) -> list[ProviderDescriptor]:
        """Return all descriptors, sorted by id."""
        return [self._providers[id].descriptor for id in sorted(self._providers)]

    async def aclose(self) -> None:
        """Close the connections of every provider."""
        for provider in self._providers.values():
            await provider.aclose()
