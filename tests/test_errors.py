"""Errors: their category, their words where others depend on them, and the cause they carry."""

from __future__ import annotations

import pytest

from mentra_nb import errors as x
from mentra_nb.errors import ErrorCategory
from mentra_nb.server_text import LONGEST, message_in


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_transient_provider_error_is_retryable(status: int) -> None:
    wrapped = x.FailedToStreamResponse(x.HttpError(status))
    assert wrapped.category is ErrorCategory.RETRYABLE


@pytest.mark.parametrize("error", [x.TransportError("reset"), x.DecodeError("cut"), x.RetryableError("later", 2.0)])
def test_a_broken_connection_is_transient(error: x.ProviderError) -> None:
    assert x.is_transient_provider_error(error)
    assert x.is_transient_runtime_error(x.FailedToStreamResponse(error))


@pytest.mark.parametrize(
    "error",
    [
        x.HttpError(400),
        x.HttpError(401),
        x.InvalidRequest("no"),
        x.MalformedStream("no"),
        x.UnsupportedCapability("p", "c"),
    ],
)
def test_permanent_provider_error_is_terminal(error: x.ProviderError) -> None:
    assert not x.is_transient_provider_error(error)
    assert x.FailedToStreamResponse(error).category is ErrorCategory.TERMINAL


def test_transient_runtime_error_helper_matches_provider_retry_policy() -> None:
    assert x.is_transient_runtime_error(x.FailedToStreamResponse(x.HttpError(429)))
    assert not x.is_transient_runtime_error(x.FailedToStreamResponse(x.InvalidRequest("bad")))
    assert not x.is_transient_runtime_error(x.EmptyAssistantResponse())


def test_a_failed_listing_is_terminal_even_when_its_cause_may_pass() -> None:
    assert x.FailedToListModels(x.HttpError(503)).category is ErrorCategory.TERMINAL


@pytest.mark.parametrize(
    "error",
    [x.ToolBudgetExceeded(1), x.ModelBudgetExceeded(2), x.MaxRoundsExceeded(3), x.Cancelled(), x.DeadlineExceeded()],
)
def test_budget_exceeded_is_terminal(error: x.MentraError) -> None:
    assert error.category is ErrorCategory.TERMINAL


def test_persistence_io_error_is_degraded() -> None:
    assert x.StoreError("disk full").category is ErrorCategory.DEGRADED


def test_display_mentions_missing_provider() -> None:
    assert str(x.ProviderNotFound("acme")) == "provider 'acme' is not registered"
    assert str(x.ProviderNotFound("acme", ("a", "b"))) == "provider 'acme' is not registered; registered are a, b"
    assert "no providers" in str(x.ProviderNotFound())


def test_display_mentions_missing_models() -> None:
    assert str(x.NoModelsAvailable("acme")) == "provider 'acme' did not return any models"


def test_empty_assistant_response_has_clear_display_text() -> None:
    assert str(x.EmptyAssistantResponse()) == "run completed without a final assistant message"


def test_a_limit_is_named_with_its_number() -> None:
    assert str(x.MaxRoundsExceeded(7)) == "max rounds exceeded at 7"
    assert x.ToolBudgetExceeded(3).limit == 3


def test_a_broken_stream_names_every_layer() -> None:
    error = x.FailedToStreamResponse(x.MalformedStream("boom"))
    assert str(error) == "the model failed: malformed provider stream: boom"


def test_source_is_exposed_for_wrapped_errors() -> None:
    inner = x.HttpError(503)
    assert x.FailedToStreamResponse(inner).__cause__ is inner
    assert x.FailedToListModels(inner).__cause__ is inner


def test_a_long_body_of_an_error_is_cut() -> None:
    assert len(x.HttpError(500, "x" * 100_000).body) == x.HttpError.BODY_LIMIT


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"error": {"message": "Incorrect API key", "type": "x"}}', "Incorrect API key"),
        ('[{"error": {"message": "Quota\\nis gone", "code": 429}}]', "Quota is gone"),
        ('{"error": "no such model"}', "no such model"),
        ('{"detail": "Not Found"}', "Not Found"),
        ("<!DOCTYPE html>\n<html><head><title>502 Bad\nGateway</title>", "an HTML page, 502 Bad Gateway"),
        ("<html><body>x", "an HTML page"),
        ("plain words", "plain words"),
        ("<!-- proxy --><div>x", "an HTML page"),
        ("<html><body><center><h1>Bad gateway</h1>", "an HTML page, Bad gateway"),
        ('{"object": "error", "message": "no such parameter"}', "no such parameter"),
        ('{"detail": [{"loc": ["body", "x"], "msg": "field required"}]}', "body.x: field required"),
        ('{"error": {"message": "Lite - {\\n \\"error\\": {\\"message\\": \\"Bad\\"}}"}}', "Lite: Bad"),
        (
            '{"error": {"message": "It failed", "metadata": {"raw": "{\\"error\\": \\"no tools\\"}"}}}',
            "It failed: no tools",
        ),
        ('{"error": {"message": "<html><title>Busy</title>"}}', "an HTML page, Busy"),
        ('{"error": {"message": "cut \\"here\\"", "more": [1, 2', 'cut "here"'),
        ("a {brace} in prose [1]", "a {brace} in prose [1]"),
        ("two\n lines", "two lines"),
        ("x" * 500, "x" * 400 + "…"),
    ],
)
def test_the_servers_own_message_is_shown(body: str, message: str) -> None:
    assert str(x.HttpError(500, body)) == f"HTTP 500: {message}"


NESTED = "[" * 400 + '"deep"' + "]" * 400


@pytest.mark.parametrize(
    "body", ['{"odd": 1}', "[1, 2]", '{"error": {"code": 3}}', '{"a"', "", "[" * 100_000, NESTED, "{}"]
)
def test_json_without_a_message_is_not_shown(body: str) -> None:
    assert str(x.HttpError(502, body)) == "HTTP 502 Bad Gateway"
    assert str(x.HttpError(599, body)) == "HTTP 599"


PEG = "The model produced output that does not match the expected peg-native format"


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (x.HttpError(401, "no"), "HTTP 401: no · check the key: %mentra check"),
        (x.HttpError(403, "no"), "HTTP 403: no · check what the key may use: %mentra check"),
        (x.HttpError(404, "no"), "no · check the name of the model: %mentra models"),
        (x.HttpError(429, "no"), "no · wait a while, then %mentra resume"),
        (x.HttpError(503, "no"), "no · %mentra resume goes on"),
        (x.HttpError(500, PEG), "asks again; if that fails too, take another model, or update the server"),
        (x.RetryableError(f"{PEG} (500)"), "asks again; if that fails too, take another model, or update the server"),
        (x.HttpError(400, "no"), "no · change the question, or take another model (-m NAME)"),
        (x.HttpError(400, "This model's maximum context length is 8192 tokens."), "context window: %mentra models"),
        (x.ProviderError("prompt is too long: 210000 tokens > 200000 maximum"), "context window: %mentra models"),
        (x.HttpError(413, "no"), "larger context window: %mentra models"),
        (x.HttpError(429, "insufficient_quota"), "check the account's credit, then %mentra resume"),
        (x.RetryableError("no"), "no · %mentra resume goes on"),
        (
            x.Unreachable("127.0.0.1:9", "refused"),
            "is the server running and reachable from here? · %mentra resume goes on",
        ),
        (x.ProviderError("Insufficient credits (402)"), "check the account's credit, then %mentra resume"),
        (x.ProviderError("no (invalid_api_key), request r"), "check the key: %mentra check"),
        (x.RetryableError("slow (rate_limit_error)"), "wait a while, then %mentra resume"),
        (x.RetryableError("busy (503)"), "busy (503) · %mentra resume goes on"),
        (x.ProviderError("a text (in brackets)"), "the model failed: a text (in brackets)"),
        (x.MalformedStream("no"), "the model failed: malformed provider stream: no"),
    ],
)
def test_a_failed_answer_says_what_to_do(error: x.ProviderError, advice: str) -> None:
    assert str(x.FailedToStreamResponse(error)).endswith(advice)
    assert str(x.FailedToStreamResponse(error, "openai/gpt-5")).startswith("openai/gpt-5 failed: ")


@pytest.mark.parametrize(
    ("where", "proxy", "retries"),
    [("127.0.0.1:9", None, 1), ("localhost:9", None, 1), ("api.example:443", None, None), ("localhost:9", "p:1", None)],
)
def test_only_a_server_on_this_machine_is_known_not_to_run(where: str, proxy: str | None, retries: int | None) -> None:
    assert x.Unreachable(where, "refused", proxy).most_retries == retries


def test_a_spent_quota_is_final_and_the_server_may_say_what_to_try_again() -> None:
    quota = '{"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}'
    assert not x.HttpError(429, quota).is_transient
    for code in ("billing_not_active", "exceeded_current_quota_error"):
        assert not x.HttpError(429, quota.replace("insufficient_quota", code)).is_transient
    assert not x.HttpError(503, should_retry=False).is_transient
    assert not x.HttpError(409).is_transient
    assert x.HttpError(409, should_retry=True).is_transient


def test_a_servers_words_cannot_steer_a_terminal_or_hide_others() -> None:
    said = message_in({"error": {"message": "no \x1b]0;title\x07\x1b[2J key\u202e\r\nfor \u200byou"}})
    assert said == "no \ufffd]0;title\ufffd\ufffd[2J key\ufffd for \ufffdyou"
    assert len(message_in("x " * 100_000)) <= LONGEST + 1
