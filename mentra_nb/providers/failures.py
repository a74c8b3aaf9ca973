"""What the answer of a server says of a failure, in its status, its headers or its body, as an exception.

Nothing here knows the HTTP client.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import anyio

from mentra_nb.errors import QUOTA_CODES, HttpError, MalformedStream, ProviderError, RetryableError
from mentra_nb.providers.answer import Response
from mentra_nb.providers.limits import limits_in
from mentra_nb.server_text import message_in

MAX_ERROR_BODY = 64 * 1024
ERROR_BODY_TIME = 10.0  # seconds

TRANSIENT_CODES = {
    *("overloaded_error", "api_error", "rate_limit_error", "rate_limit_exceeded", "server_error", "timeout_error"),
    *("server_is_overloaded", "slow_down", "internal_server_error", "insufficient_system_resource"),
    *("RESOURCE_EXHAUSTED", "UNAVAILABLE", "INTERNAL", "DEADLINE_EXCEEDED"),
}
PUBLIC_HEADERS = {"accept", "content-type", "anthropic-version", "anthropic-beta"}
"""Headers whose values are not secret."""


def stream_error(error: Any, request_id: Any = None) -> ProviderError:
    """Return the exception for an error in a stream: `{code, type, message}`, or only a text."""
    if not isinstance(error, dict):
        return ProviderError(f"the provider reported an error: {message_in(error) or 'no details given'}")
    labels = [str(error[key]) for key in ("code", "type", "status") if error.get(key) not in (None, "error")]
    text = message_in(error) or "no details given"
    if labels and labels[0] not in text:
        text = f"{text} ({labels[0]})"
    if request_id:
        text = f"{text}, request {request_id}"
    if any(label in QUOTA_CODES for label in labels):
        return ProviderError(text)
    transient = any(label in TRANSIENT_CODES or label in ("408", "429") or _is_5xx(label) for label in labels)
    return RetryableError(text, _retry_delay(error)) if transient else ProviderError(text)


def scrub(text: str, headers: Mapping[str, str], at_least: int = 4) -> str:
    """Return `text` with the secrets in `headers` replaced, if they have `at_least` that many characters."""
    for name, value in headers.items():
        secret = value.rpartition(" ")[2]
        if len(secret) >= at_least and name.lower() not in PUBLIC_HEADERS:
            text = text.replace(secret, "***")
    return text


def _is_5xx(label: str) -> bool:
    return len(label) == 3 and label.isdigit() and label.startswith("5")


async def check_status(response: Response, headers: Mapping[str, str]) -> None:
    if not 200 <= response.status < 300:
        body = scrub(await _text(response), headers)
        hint, limits = _retry_after(response.headers), limits_in(response.headers)
        if hint is None and (hint := _retry_delay(error_in(body))) is None and response.status == 429 and limits:
            hint = limits.wait
        raise HttpError(
            response.status,
            body,
            retry_after=hint,
            request_id=request_id_of(response),
            should_retry={"true": True, "false": False}.get(response.headers.get("x-should-retry", "").lower()),
        )


async def not_a_stream(response: Response, headers: Mapping[str, str], content_type: str) -> ProviderError:
    if error := error_in(scrub(await _text(response), headers)):
        return stream_error(error)
    return MalformedStream(f"the server sent {content_type} instead of events; check the base URL")


def error_in(body: str) -> Any:
    """Return the error in a JSON body, which may be an object or a list of them; `None` if there is none."""
    try:
        found, _ = json.JSONDecoder().raw_decode(body.lstrip())
    except (ValueError, RecursionError):
        return None
    first = found[0] if isinstance(found, list) and found else found
    return first.get("error") if isinstance(first, dict) else None


def _retry_delay(error: Any) -> float | None:
    """Return the seconds to wait, from Google's `RetryInfo` in the details of an error."""
    details = error.get("details") if isinstance(error, dict) else None
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        try:
            seconds = float(str(delay).removesuffix("s"))
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    return None


def request_id_of(response: Response) -> str | None:
    return response.headers.get("x-request-id") or response.headers.get("request-id")


async def _text(response: Response) -> str:
    """Return the beginning of a body as text, as much of it as arrives in time."""
    body = bytearray()
    with anyio.move_on_after(ERROR_BODY_TIME):
        async for chunk in response.chunks:
            body += chunk[:MAX_ERROR_BODY]
            if len(body) >= MAX_ERROR_BODY:
                break
    return body[:MAX_ERROR_BODY].decode("utf-8", "replace")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait, from `retry-after-ms` or `retry-after` (seconds or a date); 0 for a past date."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        return seconds if 0 <= seconds < float("inf") else None
    try:
        when = parsedate_to_datetime(headers["retry-after"])
    except (KeyError, ValueError):
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
