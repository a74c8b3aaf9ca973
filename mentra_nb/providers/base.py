"""The neutral vocabulary between the agent and any model: requests, stream events, models, and the `Provider` protocol.

Wire formats live in the sibling files, one each; nothing here knows of HTTP.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from mentra_nb.content import Data, Sendable, TokenUsage
from mentra_nb.errors import UnsupportedCapability
from mentra_nb.providers.limits import RateLimits


class ProviderDescriptor(Data):
    """What a provider is called: its `id` is the first part of a model's name.

    Example:
        >>> mn.ProviderDescriptor(id="ollama", display_name="Ollama").id
        'ollama'
    """

    id: str
    display_name: str | None = None
    description: str | None = None


class ProviderCapabilities(Data):
    """What a provider can do. A request that needs a capability that is false is refused before anything is sent.

    Example:
        >>> textual = mn.ProviderCapabilities(supports_images=False)
        >>> mn.ScriptedProvider(capabilities=textual).takes_result_images("small")
        False
    """

    supports_tool_calls: bool = True
    supports_images: bool = False
    supports_reasoning_effort: bool = False
    supports_structured_output: bool = False
    supports_hosted_tool_search: bool = False


class ModelInfo(Data):
    """A model of a provider. `created_at` is in UTC; `context_window` is in tokens.

    Example:
        >>> print(mn.ModelInfo(id="qwen3", provider="ollama"))
        ollama/qwen3
    """

    id: str
    provider: str
    display_name: str | None = None
    description: str | None = None
    created_at: datetime | None = None
    context_window: int | None = None

    def __str__(self) -> str:
        return f"{self.provider}{':' if self.provider == 'local' else '/'}{self.id}"


@dataclass(frozen=True)
class ModelSelector:
    """How `resolve_model` picks: an explicit id, or the newest listed.

    Example:
        >>> runtime = mn.Runtime([mn.ScriptedProvider(models=["small"])])
        >>> print(await runtime.resolve_model("scripted", mn.ModelSelector.newest_available()))
        scripted/small
    """

    id: str | None = None

    @classmethod
    def newest_available(cls) -> ModelSelector:
        """Select the newest model that the provider lists."""
        return cls()


class ProviderToolSpec(Data):
    """A tool as it is described to the model.

    `strict` asks for arguments that fit the schema exactly. A `deferred` tool's schema stays out of the prompt until
    the provider's own search finds it; in a request it needs `tool_search`.
    """

    name: str
    description: str | None = None
    input_schema: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})
    strict: bool = False
    deferred: bool = False


@dataclass(frozen=True)
class ResponseFormat:
    """Asks for an answer in JSON that fits `schema`. With `strict` the provider enforces it, where it has that option.

    `name` is letters, digits, `_` and `-`.

    Example:
        >>> schema = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}
        >>> mn.AgentConfig(response_format=mn.ResponseFormat("invoice", schema)).response_format.name
        'invoice'
    """

    name: str
    schema: dict[str, Any]
    strict: bool = True


@dataclass(frozen=True)
class ToolChoice:
    """`auto`, `any` (some tool must be called), `none`, or `tool` with a name.

    Example:
        >>> mn.ToolChoice("tool", "revenue")
        ToolChoice(mode='tool', name='revenue')
    """

    mode: Literal["auto", "any", "none", "tool"] = "auto"
    name: str | None = None


@dataclass(frozen=True)
class Request:
    """One request to a model, independent of any wire format.

    A wire honours every option that is set, or refuses the request with `InvalidRequest` before anything is sent. Two
    are hints that a wire may leave out: `metadata` (labels for the provider's own records) and `ToolSpec.strict`.

    - `tool_choice` and `parallel_tool_calls` count only when there are tools; `None` is the provider's own default.
    - `max_output_tokens` is per answer, reasoning included; a wire that requires a limit has a default.
    - `reasoning_effort` is `low`, `medium`, `high`, `xhigh` or `max`, and `minimal` or `none` where a wire has them.
    - `reasoning_summary` asks for reasoning that can be read: `auto`, `concise` or `detailed`. Without it, OpenAI's
      models show none; on a wire without degrees, all mean the same.
    - `response_format` asks for JSON of one shape.
    - `tool_search` lets the provider search among the deferred tools.
    - `prompt_cache_key` names requests that share a beginning, for providers that route by it.

    Example:
        >>> request = mn.Request("small", [mn.Message.user("Hello.")], temperature=0.0)
        >>> request.messages[-1].text()
        'Hello.'
    """

    model: str
    messages: Sequence[Sendable]
    system: str | None = None
    tools: Sequence[ProviderToolSpec] = ()
    tool_choice: ToolChoice | None = None
    temperature: float | None = None
    max_output_tokens: int | None = None
    reasoning_effort: str | None = None
    reasoning_summary: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    response_format: ResponseFormat | None = None
    parallel_tool_calls: bool | None = None
    tool_search: bool = False
    prompt_cache_key: str | None = None

    def defers(self, tool: ProviderToolSpec) -> bool:
        """Return whether a tool is left to the search. A tool that must be called never is."""
        choice = self.tool_choice
        return tool.deferred and not (choice is not None and choice.mode == "tool" and choice.name == tool.name)


# ---- events of a stream ---------------------------------------------------------------------------------------

BlockKind = Literal["text", "thinking", "tool_use", "opaque"]


@dataclass(frozen=True, slots=True)
class MessageStarted:
    """The answer starts. `id` and `model` are the server's; `request_id` is the id its operators need to find it."""

    id: str
    model: str
    request_id: str | None = None
    limits: RateLimits | None = field(default=None, compare=False, repr=False)
    """What is left of the provider's rate limits, if it says so."""


@dataclass(frozen=True, slots=True)
class ContentBlockStarted:
    """A block starts. Tool uses carry their call `id` and `name`; `item_id` is the wire's id of the block, if any."""

    index: int
    kind: BlockKind
    id: str | None = None
    name: str | None = None
    item_id: str | None = None


@dataclass(slots=True)  # freezing it would take twice as long to make, and an answer has thousands
class ContentBlockDelta:
    """A piece of a block: text, reasoning text, or the JSON text of a call's arguments."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class ContentBlockStopped:
    """A block is complete. `signature` and `encrypted` are a thinking block's opaque parts, `phase` a text's mark.

    An `opaque` block has no deltas; all of it is `encrypted`, as JSON text.
    """

    index: int
    signature: str | None = None
    encrypted: str | None = None
    phase: str | None = None
    at_end: bool = field(default=False, compare=False, repr=False)
    """Whether the rest of the message is here too, so that nothing is waited for before `MessageStopped`."""


@dataclass(frozen=True, slots=True)
class MessageDelta:
    """Stop reason, usage so far, and what the server says about stopping. `None` leaves the earlier value."""

    stop_reason: str | None = None
    """`end`, `tool_use`, `max_tokens`, `refusal`, `content_filter`, `pause`, `context_overflow`, `error` or `unknown`.

    An adapter maps the reasons it knows to these and passes others on unchanged. `pause`: the provider interrupted a
    long answer, and continues if asked again with the answer so far in the history. `context_overflow`: the model's
    context was full before the answer was complete. `error`: the model's output was unusable.
    """
    usage: TokenUsage | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class MessageStopped:
    """The message is complete: the wire's terminal event has come. Always the last event."""


ProviderEvent = (
    MessageStarted | ContentBlockStarted | ContentBlockDelta | ContentBlockStopped | MessageDelta | MessageStopped
)


class Provider(ABC):
    """A source of model answers. One instance serves many agents at once and keeps no conversation.

    Example:
        >>> from contextlib import asynccontextmanager
        >>> class Silent(mn.Provider):
        ...     descriptor = mn.ProviderDescriptor(id="silent")
        ...     @asynccontextmanager
        ...     async def stream(self, request):
        ...         async def events():
        ...             yield mn.provider.MessageStarted("1", request.model)
        ...             yield mn.provider.MessageStopped()
        ...         yield events()
        >>> mn.Runtime([Silent()]).providers()[0].id
        'silent'
    """

    descriptor: ProviderDescriptor
    capabilities: ProviderCapabilities = ProviderCapabilities.model_construct()

    @abstractmethod
    def stream(self, request: Request) -> AbstractAsyncContextManager[AsyncIterator[ProviderEvent]]:
        """Send a request and return its events. Entering opens the stream; leaving always closes it.

        Raises `ProviderError` on entering (the request may be retried) or while iterating (it may not). An iteration
        that ends without raising has yielded `MessageStopped` last.
        """

    def takes_images(self, model: str) -> bool:
        """Return whether a message of the user may have pictures, as far as is known."""
        return self.capabilities.supports_images

    def takes_result_images(self, model: str) -> bool:
        """Return whether the result of a tool may have pictures."""
        return self.takes_images(model)

    async def list_models(self) -> list[ModelInfo]:
        """Return the models the provider offers. Raises `ProviderError`."""
        raise UnsupportedCapability(self.descriptor.id, "listing models")

    async def aclose(self) -> None:
        """Close connections. The provider may be used again afterwards."""
        return
