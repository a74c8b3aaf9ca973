"""Errors: their category, their words where others depend on them, and the cause they carry."""

from __future__ import annotations

import pytest

from mentra_nb import errors as x
from mentra_nb.errors import ErrorCategory


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
    assert str(error) == "failed to stream provider response: malformed provider stream: boom"


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
        ('{"odd": 1}', '{"odd": 1}'),
    ],
)
def test_the_servers_own_message_is_shown(body: str, message: str) -> None:
    assert str(x.HttpError(500, body)) == f"provider returned HTTP 500: {message}"


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (x.HttpError(401, "no"), "no; check the key: %mentra check"),
        (x.HttpError(404, "no"), "no; check the name of the model: %mentra models"),
        (x.HttpError(429, "no"), "no; %mentra resume goes on"),
        (x.HttpError(503, "no"), "no; %mentra resume goes on"),
        (x.HttpError(400, "no"), "no"),
        (x.HttpError(429, "insufficient_quota"), "check the account's credit, then %mentra resume goes on"),
        (x.RetryableError("no"), "no; %mentra resume goes on"),
    ],
)
def test_a_failed_answer_says_what_to_do(error: x.ProviderError, advice: str) -> None:
    assert str(x.FailedToStreamResponse(error)).endswith(advice)


def test_a_spent_quota_is_final_and_the_server_may_say_what_to_try_again() -> None:
    quota = '{"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}'
    assert not x.HttpError(429, quota).is_transient
    assert not x.HttpError(503, should_retry=False).is_transient
    assert x.HttpError(409, should_retry=True).is_transient
