"""What the headers of an answer say of rate limits, in the forms that providers document."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from kits.http_server import Reply, Server, sse

from mentra_nb.content import Message
from mentra_nb.errors import HttpError
from mentra_nb.providers.base import MessageStarted, Request
from mentra_nb.providers.chat_completions import ChatCompletionsProvider
from mentra_nb.providers.limits import Allowance, RateLimits, limits_in

OPENAI = {
    "x-ratelimit-limit-requests": "500",
    "x-ratelimit-remaining-requests": "499",
    "x-ratelimit-reset-requests": "120ms",
    "x-ratelimit-limit-tokens": "30000",
    "x-ratelimit-remaining-tokens": "0",
    "x-ratelimit-reset-tokens": "1m30s",
}


def test_the_headers_of_openai_are_read() -> None:
    assert limits_in(OPENAI) == RateLimits(Allowance(499, 500, 0.12), Allowance(0, 30000, 90.0))


def test_the_headers_of_anthropic_are_read() -> None:
    when = datetime.fromtimestamp(time.time() + 40, UTC).isoformat().replace("+00:00", "Z")
    names = {"limit": "50", "remaining": "7", "reset": when}
    found = limits_in({f"anthropic-ratelimit-requests-{part}": value for part, value in names.items()})
    assert found is not None
    assert found.tokens is None
    assert found.requests is not None
    assert found.requests[:2] == (7, 50)
    assert 30 < found.requests.full_in <= 40


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [("1h2m3.5s", 3723.5), ("7", 7.0), ("0.25", 0.25), ("2020-01-01T00:00:00Z", 0.0), ("6m0s", 360.0)],
)
def test_a_time_is_read_in_every_form(reset: str, seconds: float) -> None:
    found = limits_in({"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": reset})
    assert found == RateLimits(Allowance(1, None, seconds), None)


@pytest.mark.parametrize("reset", ["", "soon", "1x", "m", "-5", "1e999", "nan", "9" * 400 + "-01-01"])
def test_a_time_that_cannot_be_read_says_nothing(reset: str) -> None:
    assert limits_in({"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": reset}) is None
    assert limits_in({"x-ratelimit-remaining-requests": "many", "x-ratelimit-reset-requests": "1s"}) is None
    assert limits_in({}) is None


def test_a_limit_fills_steadily_so_that_the_next_request_needs_only_its_share() -> None:
    assert Allowance(0, 500, 60.0).wait == pytest.approx(0.12)
    assert Allowance(0, None, 60.0).wait == 60.0
    assert Allowance(3, 500, 60.0).wait == 0.0


@pytest.mark.anyio
async def test_the_first_event_of_an_answer_has_the_limits_and_a_refusal_the_wait() -> None:
    chunk = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]}
    async with Server() as server:
        provider = ChatCompletionsProvider("lab", server.url)
        headers = {"content-type": "text/event-stream", **OPENAI}
        server.reply(Reply([sse(chunk, done=True)], headers=headers), Reply([b"{}"], 429, OPENAI))
        request = Request("m", [Message.user("hi")])
        async with provider.stream(request) as events:
            first = await anext(events)
        assert isinstance(first, MessageStarted)
        assert first.limits == limits_in(OPENAI)
        with pytest.raises(HttpError) as refused:
            async with provider.stream(request):
                pass
        assert refused.value.retry_after == pytest.approx(90 / 30_000)
        await provider.aclose()
