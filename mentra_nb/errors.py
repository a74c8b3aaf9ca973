"""The exceptions of mentra-nb: the only ones it raises on purpose. Every message says what to do next.

MentraError
 ├─ ProviderError                      the model's side of the wire
 │   ├─ TransportError                 no connection, or it broke                        retryable
 │   │   └─ Unreachable                no connection could be made
 │   ├─ HttpError                      a status other than 2xx                           by status
 │   ├─ RetryableError                 the provider asked to try again                   retryable
 │   ├─ DecodeError                    a body that is not of the expected form           retryable
 │   ├─ InvalidRequest                 refused before or by the provider                 terminal
 │   │   └─ UnsupportedCapability      this provider cannot do what was asked
 │   └─ MalformedStream                a stream that broke the wire's own rules          terminal
 │       └─ StreamTruncated            it ended before its terminal event
 ├─ ProviderNotFound, NoModelsAvailable, FailedToListModels                              terminal
 ├─ FailedToStreamResponse             wraps the ProviderError of a turn                 as its cause
 ├─ OperationDenied                    not allowed, or the question is already closed    terminal
 ├─ Cancelled, DeadlineExceeded                                                          terminal
 ├─ ToolBudgetExceeded, ModelBudgetExceeded, MaxRoundsExceeded                           terminal
 ├─ BudgetSpent                        a budget of this turn, day or month is used up    terminal
 ├─ NoResumableTurn                    no turn was interrupted or failed                 terminal
 ├─ UnknownEntry                       the transcript has no such entry                  terminal
 ├─ EmptyAssistantResponse             the turn finished without a final message         terminal
 ├─ InvalidOutput                      a typed answer that does not fit its type         terminal
 ├─ InvalidTool                        a function that cannot be offered as a tool       terminal
 ├─ SkillLoadError                     a folder of skills that cannot be loaded          terminal
 │   ├─ ReadDir, ReadFile              it, or a file in it, cannot be read
 │   ├─ InvalidFrontmatter             a file whose front matter is not valid
 │   └─ DuplicateSkillName             two files of one name
 ├─ ConfigurationError                 a setting, model name or option that is not valid terminal
 ├─ ReplayMiss                         this request is not on the tape                   terminal
 └─ StoreError                         the state store or the record failed              degraded
     └─ LeaseUnavailable               another process has the agent                     degraded
"""

from __future__ import annotations

import re
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING

from mentra_nb.secrets.late import late
from mentra_nb.server_text import message_in

if TYPE_CHECKING:
    from pathlib import Path


_CONTROL = late(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_TOO_LONG = late(
    r"context.length|context.(window|size)|context of the local model|maximum context|prompt is too long"
    r"|input token count|too many (input )?tokens|n_ctx",
    re.IGNORECASE,
)
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_UNREADABLE = late(r"expected peg-[\w-]+ format|parse tool call", re.IGNORECASE)
"""What llama.cpp says if it cannot read the answer of the model it runs."""
_STATUS_OF = {
    **dict.fromkeys(("invalid_api_key", "authentication_error", "UNAUTHENTICATED"), 401),
    **dict.fromkeys(("insufficient_quota", "billing_hard_limit_reached", "billing_error"), 402),
    **dict.fromkeys(("permission_error", "PERMISSION_DENIED"), 403),
    **dict.fromkeys(("model_not_found", "not_found_error", "NOT_FOUND"), 404),
    **dict.fromkeys(("rate_limit_error", "rate_limit_exceeded", "RESOURCE_EXHAUSTED"), 429),
}
"""The HTTP statuses that codes of errors stand for."""


def without_control(text: str) -> str:
    """Return foreign text for a terminal: control characters but line breaks and tabs become `\\x1b` and the like."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


class ErrorCategory(StrEnum):
    RETRYABLE = "retryable"
    """May work if tried again."""
    TERMINAL = "terminal"
    """Will fail the same way."""
    DEGRADED = "degraded"
    """The work went on, but state may be incomplete."""


class MentraError(Exception):
    """Base of every error this package raises on purpose."""

    category = ErrorCategory.TERMINAL

    def __str__(self) -> str:
        """Return the message. Control characters in it are made visible: a server may have written it."""
        return without_control(super().__str__())

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle what it holds, and not how it was made: the arguments are not those of the class's own `__init__`."""
        return _unpickled, (type(self), self.args, self.__dict__)

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows: the sentence, without the frames of this package."""
        return [f"{type(self).__name__}: {self}"]


def _unpickled(kind: type[MentraError], args: tuple[object, ...], held: dict[str, object]) -> MentraError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(held)
    return error


class ProviderError(MentraError):
    """A request to a model provider failed."""

    most_retries: int | None = None
    """More retries than these are not worth while; `None` if nothing is known about that."""

    @property
    def is_transient(self) -> bool:
        """True if the same request may succeed when sent again."""
        return self.category is ErrorCategory.RETRYABLE


class TransportError(ProviderError):
    category = ErrorCategory.RETRYABLE


class Unreachable(TransportError):
    """No connection to `where` (host:port), directly or through a proxy.

    A server on this machine that does not answer does not run, so it is asked only once more.
    """

    def __init__(self, where: str, why: str, proxy: str | None = None) -> None:
        via = f" through the proxy {proxy}" if proxy else ""
        super().__init__(f"could not connect to {where}{via} ({why}): is the server running and reachable from here?")
        if proxy is None and where.rpartition(":")[0] in ("127.0.0.1", "::1", "localhost"):
            self.most_retries = 1


class RetryableError(ProviderError):
    """The provider asked to try again, after `delay` seconds if it named a time."""

    category = ErrorCategory.RETRYABLE

    def __init__(self, message: str, delay: float | None = None) -> None:
        super().__init__(message)
        self.delay = delay


QUOTA_CODES = (
    *("insufficient_quota", "billing_hard_limit_reached", "billing_not_active"),  # OpenAI
    *("exceeded_current_quota_error", "insufficient_balance", "credit_balance"),  # other companies
)
"""Codes of errors that waiting does not mend, since the account has no credit left."""


class HttpError(ProviderError):
    """A response with a status other than 2xx.

    `retry_after` is in seconds. `should_retry` is what the server says about trying again, `None` if it says nothing.
    """

    BODY_LIMIT = 4096

    def __init__(
        self,
        status: int,
        body: str = "",
        *,
        retry_after: float | None = None,
        request_id: str | None = None,
        should_retry: bool | None = None,
    ) -> None:
        self.status = status
        self.body: str = body[: self.BODY_LIMIT]
        self.retry_after = retry_after
        self.request_id = request_id
        self.should_retry = should_retry
        message = message_in(body)
        detail = f": {message}" if message else f" {_PHRASES.get(status, '')}".rstrip()
        about = f", request {request_id}" if request_id else ""
        super().__init__(f"HTTP {status}{detail}{about}")

    @property
    def category(self) -> ErrorCategory:  # type: ignore[override]  # depends on the status
        transient = self.status >= 500 or self.status in (408, 429)
        if self.status < 500 and any(code in self.body for code in QUOTA_CODES):
            transient = False
        elif self.should_retry is not None:
            transient = self.should_retry
        return ErrorCategory.RETRYABLE if transient else ErrorCategory.TERMINAL


class DecodeError(ProviderError):
    category = ErrorCategory.RETRYABLE


class InvalidRequest(ProviderError):
    pass


class UnsupportedCapability(InvalidRequest):
    def __init__(self, provider: str, capability: str) -> None:
        super().__init__(f"{provider} does not support {capability}")
        self.provider = provider
        self.capability = capability


class MalformedStream(ProviderError):
    def __init__(self, message: str) -> None:
        super().__init__(f"malformed provider stream: {message}")


class StreamTruncated(MalformedStream):
    def __init__(self, message: str = "it ended before its terminal event") -> None:
        super().__init__(message)


class ProviderNotFound(MentraError):
    def __init__(self, provider: str | None = None, known: tuple[str, ...] = ()) -> None:
        self.provider = provider
        if provider is None:
            text = "no providers are registered"
        else:
            text = f"provider '{provider}' is not registered"
            if known:
                text += f"; registered are {', '.join(known)}"
        super().__init__(text)


class NoModelsAvailable(MentraError):
    def __init__(self, provider: str) -> None:
        super().__init__(f"provider '{provider}' did not return any models")


class FailedToListModels(MentraError):
    def __init__(self, source: ProviderError) -> None:
        super().__init__(f"failed to list models: {unlisted(source)}")
        self.__cause__: BaseException | None = source


class FailedToStreamResponse(MentraError):
    """A model request failed. `source` (also `__cause__`) is the provider's error.

    The message says what failed, why, and what to do next.
    """

    def __init__(self, source: ProviderError, model: str | None = None) -> None:
        self._model = model or "the model"
        super().__init__(f"{self._model} failed: {advised(source)}")
        self.source = source
        self.__cause__: BaseException | None = source

    @property
    def category(self) -> ErrorCategory:  # type: ignore[override]  # that of its cause
        return self.source.category

    def name_conversation(self, name: str) -> None:
        """Say in the message how to go on in the conversation that `%mentra resume` finds by `name`."""
        self.args = (f"{self._model} failed: {advised(self.source, name)}",)


def advised(error: MentraError, conversation: str = "") -> str:
    """Return the message of an error and what to do next after a provider's, in the `conversation` of that name."""
    advice = what_to_do(error) if isinstance(error, ProviderError) else ""
    if conversation:
        advice = advice.replace("%mentra resume", f"%mentra resume {conversation}")
    return f"{error} · {advice}" if advice else str(error)


def unlisted(error: MentraError) -> str:
    """Return the message of an error met while models were listed, and what to do if the key is refused."""
    advice = _KEY_ADVICE.get(_status(error)) if isinstance(error, ProviderError) else None
    return f"{error} · {advice}" if advice else str(error)


_KEY_ADVICE = {401: "check the key: %mentra check", 403: "check what the key may use: %mentra check"}


def is_too_long(error: ProviderError) -> bool:
    """Return whether a request was refused because the conversation is too long for the model."""
    return _status(error) == 413 or bool(_TOO_LONG.search(str(error)))


def what_to_do(error: ProviderError) -> str:
    """Return what to do after an error of a provider in a turn; empty if its message says it."""
    text, status = str(error), _status(error)
    if is_too_long(error):
        return "begin a new conversation (-s NAME), or take a model with a larger context window: %mentra models"
    if _UNREADABLE.search(text):
        return "%mentra resume asks again; if that fails too, take another model, or update the server"
    if status == 402 or (isinstance(error, HttpError) and any(code in error.body for code in QUOTA_CODES)):
        return "check the account's credit, then %mentra resume"
    if status in (400, 422):
        return "change the question, or take another model (-m NAME)"
    known = {
        **_KEY_ADVICE,
        404: "check the name of the model: %mentra models",
        429: "wait a while, then %mentra resume",
    }
    resumable = isinstance(error, HttpError | RetryableError | TransportError) and error.is_transient
    return known.get(status) or ("%mentra resume goes on" if resumable else "")


def _status(error: ProviderError) -> int:
    """Return the HTTP status that an error has or names, or 0."""
    return getattr(error, "status", None) or _status_in(str(error)) or 0


def _status_in(text: str) -> int | None:
    """Return the HTTP status that the label of an error in a stream stands for: `(402)`, `(invalid_api_key)`."""
    labels = re.findall(r"\(([\w-]{3,40})\)", text[-200:])
    label = labels[-1] if labels else ""
    return int(label) if re.fullmatch("[45][0-9]{2}", label) else _STATUS_OF.get(label)


class OperationDenied(MentraError):
    pass


class Cancelled(MentraError):
    def __init__(self, reason: str = "stopped") -> None:
        super().__init__(reason)


class DeadlineExceeded(MentraError):
    def __init__(self) -> None:
        super().__init__("the deadline of this turn has passed")


class _LimitExceeded(MentraError):
    what = ""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{self.what} exceeded at {limit}")
        self.limit = limit


class ToolBudgetExceeded(_LimitExceeded):
    what = "tool budget"


class ModelBudgetExceeded(_LimitExceeded):
    what = "model budget"


class MaxRoundsExceeded(_LimitExceeded):
    what = "max rounds"


class BudgetSpent(MentraError):
    """A budget has no room for what comes next, and nobody has raised it. Nothing of it was sent."""


class NoResumableTurn(MentraError):
    def __init__(self, agent: str) -> None:
        super().__init__(f"agent '{agent}' has no interrupted or failed turn to resume")


class UnknownEntry(MentraError):
    def __init__(self, entry_id: str) -> None:
        super().__init__(f"the transcript has no entry '{entry_id}'")


class EmptyAssistantResponse(MentraError):
    """The turn finished without a final message. `detail` is what the server says about it, if anything."""

    def __init__(self, detail: str | None = None) -> None:
        text = "run completed without a final assistant message"
        super().__init__(f"{text}: {detail}" if detail else text)
        self.detail = detail


class InvalidOutput(MentraError):
    """The typed answer of a model does not fit. It stays in the conversation; `text` is what it was: JSON, or words."""

    def __init__(self, output: str, problem: str, text: str = "") -> None:
        super().__init__(f"the model's answer does not match {output}: {problem}")
        self.output = output
        self.problem = problem
        self.text = text


class InvalidTool(MentraError):
    pass


class SkillLoadError(MentraError):
    """A folder of skills cannot be loaded; none of it is used."""


class ReadDir(SkillLoadError):
    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"the skills folder '{path}' cannot be read: {reason}")
        self.path = path


class ReadFile(SkillLoadError):
    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"'{path}' cannot be read: {reason}")
        self.path = path


class InvalidFrontmatter(SkillLoadError):
    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"the front matter of '{path}' is not valid: {reason}")
        self.path = path


class DuplicateSkillName(SkillLoadError):
    def __init__(self, name: str, first: Path, second: Path) -> None:
        super().__init__(f"two skills are named '{name}': '{first}' and '{second}'; rename one of them")
        self.name = name
        self.first = first
        self.second = second


class ConfigurationError(MentraError):
    pass


class ReplayMiss(ProviderError):
    """The request is not on the tape that is replayed."""


class StoreError(MentraError):
    category = ErrorCategory.DEGRADED


class LeaseUnavailable(StoreError):
    """Another runtime holds the lease of the agent, or has taken it over."""


def as_exception(error: BaseException) -> Exception:
    """Return what foreign code raised as an `Exception`: `KeyboardInterrupt` and the like would end the event loop."""
    if isinstance(error, Exception):
        return error
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - foreign code
        text = ""
    return RuntimeError(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def is_transient_provider_error(error: ProviderError) -> bool:
    """Return whether the request may succeed if it is sent again."""
    return error.is_transient


def is_transient_runtime_error(error: MentraError) -> bool:
    """Return whether the error's category is `retryable`."""
    return error.category is ErrorCategory.RETRYABLE
