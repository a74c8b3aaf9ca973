"""Which model a turn uses, and that a name that is not clear is answered with what to do."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr

from mentra_nb.chat.models import (
    DEMO_NOTICE,
    Address,
    Choice,
    address_in,
    choose,
    custom,
    known_names,
    newest_chat_model,
    open_provider,
    with_alias,
)
from mentra_nb.content import Message
from mentra_nb.errors import ConfigurationError, NoModelsAvailable
from mentra_nb.providers.base import ModelInfo, Request
from mentra_nb.providers.wire import WireProvider
from mentra_nb.settings import Endpoint, Settings

LAB = Endpoint(base_url="http://127.0.0.1:1/v1")


def chosen(name: str | None = None, environ: Mapping[str, str] | None = None, **settings: object) -> Choice:
    return choose(name, Settings.model_validate(settings), environ or {}, registered={"mine"})


def test_the_name_given_goes_before_the_setting_before_the_keys() -> None:
    key = {"OPENAI_API_KEY": "k"}
    assert chosen("ollama/qwen3", key, model="openrouter/x") == Choice("ollama", "qwen3")
    assert chosen(None, key, model="openrouter/x") == Choice("openrouter", "x")
    assert chosen(None, key) == Choice("openai", None)


def test_without_anything_it_is_the_demo_and_says_so() -> None:
    assert chosen() == Choice("demo", "demo", DEMO_NOTICE)
    assert chosen("demo") == Choice("demo", "demo")
    assert chosen(None, {"OPENAI_API_KEY": ""}) == Choice("demo", "demo", DEMO_NOTICE)


def test_two_keys_and_no_setting_is_a_question() -> None:
    with pytest.raises(ConfigurationError, match="-m openai/MODEL") as error:
        chosen(None, {"OPENAI_API_KEY": "k", "OPENROUTER_API_KEY": "k"})
    assert "openrouter/MODEL" in str(error.value)


def test_a_name_splits_at_the_first_slash() -> None:
    assert chosen("openrouter/meta/llama") == Choice("openrouter", "meta/llama")


def test_a_provider_alone_is_asked_for_its_newest() -> None:
    assert chosen("ollama") == Choice("ollama", None)
    assert chosen("mine") == Choice("mine", None)
    assert chosen("lab", providers={"lab": LAB}) == Choice("lab", None)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gpt-5", "'gpt-5' is not a model name: write provider/model"),
        ("olama", "did you mean 'ollama'"),
        ("opnai/gpt-5", "there is no provider 'opnai'; did you mean 'openai'"),
        ("zzz/x", "known are "),
        ("/x", "write provider/model"),
        ("openai/", "write provider/model"),
        ("local", "write local:/path/model.gguf"),
    ],
)
def test_an_unclear_name_is_an_error_that_says_what_to_write(name: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        chosen(name)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unclear_name_in_a_setting_says_where_it_was_set() -> None:
    settings = Settings()
    settings.change("model", "nope/x", "MENTRA_MODEL")
    with pytest.raises(ConfigurationError, match=r"^MENTRA_MODEL: there is no provider 'nope'"):
        choose(None, settings, {})
    with pytest.raises(ConfigurationError, match=r"^there is no provider 'nope'"):
        choose("nope/x", settings, {})


def test_a_provider_is_opened_with_its_key_and_missing_ones_are_named() -> None:
    assert open_provider("openai", Settings(), {"OPENAI_API_KEY": "k"}).descriptor.id == "openai"
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        open_provider("openai", Settings(), {})
    assert open_provider("lab", Settings(providers={"lab": LAB}), {}).descriptor.id == "lab"


def test_an_invalid_url_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="must begin with http"):
        custom("lab", Endpoint(base_url="lab:8000"))


def model(id: str, year: int | None = None) -> ModelInfo:
    return ModelInfo(id=id, provider="p", created_at=datetime(year, 1, 1, tzinfo=UTC) if year else None)


def test_the_newest_that_can_chat_is_taken() -> None:
    models = [model("text-embedding-9", 2026), model("b", 2024), model("a", 2024), model("whisper-2", 2025), model("c")]
    assert newest_chat_model("p", models).id == "a"
    with pytest.raises(NoModelsAvailable):
        newest_chat_model("p", [model("tts-1", 2025)])


def test_a_model_file_is_named_by_its_path() -> None:
    assert chosen("local:/models/qwen.gguf") == Choice("local", "/models/qwen.gguf")


def test_an_alias_stands_for_a_name_or_for_another_alias() -> None:
    aliases = {"fast": "small", "small": "ollama/qwen3"}
    assert chosen("fast", aliases=aliases) == Choice("ollama", "qwen3")
    assert chosen(None, model="small", aliases=aliases) == Choice("ollama", "qwen3")
    with pytest.raises(ConfigurationError, match="did you mean 'small'"):
        chosen("smal", aliases=aliases)


def test_aliases_in_a_circle_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"in a circle \(a → b → a\)"):
        chosen("a", aliases={"a": "b", "b": "a"})
    with pytest.raises(ConfigurationError, match="in a circle"):
        with_alias("b", "a", Settings(aliases={"a": "b"}))


def test_an_alias_is_checked_before_it_is_kept() -> None:
    assert with_alias("q", "ollama/qwen3", Settings(aliases={"a": "demo"})) == {"a": "demo", "q": "ollama/qwen3"}
    for name, target in (("openai", "demo"), ("a/b", "demo"), ("local", "demo"), ("q", "nowhere/x"), ("q", "gpt-5")):
        with pytest.raises(ConfigurationError):
            with_alias(name, target, Settings())


def test_the_names_to_complete_are_known_without_asking() -> None:
    names = known_names(Settings(providers={"lab": LAB}, aliases={"fast": "lab/x"}))
    assert {"fast", "lab/", "openai/", "ollama/", "demo", "local:"} <= set(names)


@pytest.mark.parametrize("name", ["local", "demo", "", "a/b"])
def test_a_server_cannot_take_a_name_that_means_something_else(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot name a server"):
        custom(name, Endpoint(base_url="http://127.0.0.1:1/v1"))


def test_a_custom_server_has_its_own_headers_and_place_for_the_key() -> None:
    headers = {"x-team": SecretStr("blue")}
    endpoint = Endpoint(base_url="http://127.0.0.1:1/v1", auth_header="api-key", headers=headers)
    provider = custom("lab", endpoint, "s3cret-value")
    assert isinstance(provider, WireProvider)
    assert provider.headers() == {"x-team": "blue", "api-key": "s3cret-value"}
    assert "s3cret" not in f"{provider.__dict__} {endpoint!r}"
    assert "blue" not in repr(endpoint)


GOOGLE = "https://generativelanguage.googleapis.com/v1beta"


@pytest.mark.parametrize(
    ("pasted", "wire", "asked"),
    [
        ("http://h:1/v1", "chat_completions", "http://h:1/v1/chat/completions"),
        ("http://h:1", "chat_completions", "http://h:1/v1/chat/completions"),
        ("http://h:1/v1/chat/completions", "chat_completions", "http://h:1/v1/chat/completions"),
        ("http://h:1/chat/completions/", "chat_completions", "http://h:1/chat/completions"),
        (
            "https://h/openai/deployments/g/chat/completions?api-version=2",
            "chat_completions",
            "https://h/openai/deployments/g/chat/completions?api-version=2",
        ),
        ("https://api.anthropic.com/v1/messages", "anthropic_messages", "https://api.anthropic.com/v1/messages"),
        (" https://api.openai.com/v1/responses ", "responses", "https://api.openai.com/v1/responses"),
        (
            f"{GOOGLE}/models/gemini-2.5-pro:streamGenerateContent?alt=sse&key=geheim",
            "gemini_generate_content",
            f"{GOOGLE}/models/m:streamGenerateContent?alt=sse",
        ),
        (
            f"{GOOGLE}/models/gemini-2.5-pro:generateContent",
            "gemini_generate_content",
            f"{GOOGLE}/models/m:streamGenerateContent?alt=sse",
        ),
    ],
)
def test_a_pasted_address_of_a_request_is_recognised(pasted: str, wire: str, asked: str) -> None:
    provider = custom("lab", Endpoint(base_url=pasted))
    assert isinstance(provider, WireProvider)
    assert (provider.wire, provider.address(Request("m", [Message.user("hi")]))) == (wire, asked)
    said = custom("lab", Endpoint(base_url=pasted, wire="responses"))
    assert isinstance(said, WireProvider)
    assert said.wire == "responses"


def test_a_pasted_address_of_gemini_names_the_model_and_its_key_is_not_in_the_url() -> None:
    pasted = f"{GOOGLE}/models/gemini-2.5-pro:streamGenerateContent?key=geheim&alt=sse&x=1"
    assert address_in(pasted) == Address(f"{GOOGLE}?x=1", "gemini_generate_content", "gemini-2.5-pro", "geheim")
    provider = custom("lab", Endpoint(base_url=pasted))
    assert isinstance(provider, WireProvider)
    assert "geheim" in provider.headers().values()
    assert "geheim" not in provider.base_url
