"""What a conversation is made of: roles, content blocks, messages, token counts. Frozen data, JSON round-trip.

No behaviour of a provider, a tool or a screen lives here.
"""

from __future__ import annotations

import base64
import json
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from inspect import Signature
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, TypeVar, dataclass_transform

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SerializerFunctionWrapHandler, model_serializer

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

T = TypeVar("T")

MAX_DEPTH = 100
"""Levels of nesting in the arguments and results of calls; JSON that goes deeper cannot be stored."""


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field, PrivateAttr))
class _Frozen(ModelMetaclass):
    """Tells type checkers that the fields of `Data` cannot be assigned: they do not read `model_config`."""


class _LateSignature:
    """The signature of a model that is built when first used: builds it, and gives way to pydantic's own."""

    def __get__(self, instance: object, model: type[BaseModel]) -> Signature:
        if instance is not None or not model.model_rebuild(raise_errors=False):
            raise AttributeError("__signature__")
        return model.__signature__


class Data(BaseModel, metaclass=_Frozen):
    """A frozen record. Unknown keys are ignored on load, so that newer files still open.

    Validators are built at the first instance, which keeps the import of the package short. Modules with many such
    classes do without postponed annotations, as each would be compiled again.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if not cls.__pydantic_complete__:
            type.__setattr__(cls, "__signature__", _LateSignature())


def is_too_deep(value: Any) -> bool:
    """Return whether plain data is nested deeper than `MAX_DEPTH` levels."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        holders = [each for each in level if isinstance(each, dict | list | tuple)]
        if not holders:
            return False
        level = [inner for each in holders for inner in (each.values() if isinstance(each, dict) else each)]
    return True


class Role(StrEnum):
    USER = "user"
    ASSISTANT = "assistant"


class Text(Data):
    """Text of the user or the model. `phase` is a model's mark for it, such as `commentary` or `final_answer`."""

    type: Literal["text"] = "text"
    text: str
    phase: str | None = None

    @model_serializer(mode="wrap")
    def _without_empty_phase(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a phase that is not set, as earlier versions wrote none."""
        members: dict[str, Any] = serialize(self)
        if self.phase is None:
            members.pop("phase", None)
        return members


class Image(Data):
    """A picture: base64 `data` with its `media_type`, or a `url`.

    Example:
        >>> mn.Image.from_bytes("image/png", b"...").media_type
        'image/png'
        >>> mn.Image(url="https://example.com/plot.png").url
        'https://example.com/plot.png'
    """

    type: Literal["image"] = "image"
    media_type: str | None = None
    data: str | None = None
    url: str | None = None

    @classmethod
    def from_bytes(cls, media_type: str, raw: bytes) -> Image:
        """Return the image with these bytes, such as the content of a PNG file."""
        return cls(media_type=media_type, data=base64.b64encode(raw).decode("ascii"))


class Thinking(Data):
    """Reasoning of a model. `signature` and `encrypted` are opaque and go back to the same provider and model only."""

    type: Literal["thinking"] = "thinking"
    text: str = ""
    id: str | None = None
    signature: str | None = None
    encrypted: str | None = None
    provider: str | None = None
    model: str | None = None


class ToolUse(Data):
    """A call the model made. `error` is set, and `input` empty, when its arguments were not a JSON object."""

    type: Literal["tool_use"] = "tool_use"
    id: str
    name: str
    input: dict[str, Any] = Field(default_factory=dict)
    item_id: str | None = None
    error: str | None = None


class ToolResult(Data):
    type: Literal["tool_result"] = "tool_result"
    tool_use_id: str
    content: Any = ""
    """Text, or any JSON value."""
    is_error: bool = False
    images: tuple[Image, ...] = ()
    """Pictures that belong to the result; they follow its content."""
    subagents: tuple[str, ...] = ()
    """The ids of the subagents that the call gave tasks to. No provider is sent them."""

    def display(self) -> str:
        """Return the content as text: text as it is, anything else as compact JSON."""
        if isinstance(self.content, str):
            return self.content
        return json.dumps(self.content, ensure_ascii=False, separators=(",", ":"))


class Opaque(Data):
    """A part of an answer that only its provider understands, such as a hosted search. `data` is JSON text.

    It is never shown, and goes back unchanged to the same provider and model only.
    """

    type: Literal["opaque"] = "opaque"
    data: str
    provider: str | None = None
    model: str | None = None


ContentBlock = Annotated[Text | Image | Thinking | ToolUse | ToolResult | Opaque, Field(discriminator="type")]


class Message(Data):
    """One message of a conversation. Its encoded forms are computed once per wire and kept with it.

    Example:
        >>> mn.Message.user("Hello.").text()
        'Hello.'
    """

    role: Role
    content: tuple[ContentBlock, ...]
    _encoded: dict[str, Any] = PrivateAttr(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        """Compare role and content; encoded forms do not count."""
        return isinstance(other, Message) and (self.role, self.content) == (other.role, other.content)

    def __hash__(self) -> int:
        return hash((self.role, self.content))

    @classmethod
    def user(cls, content: str | Iterable[Any]) -> Message:
        """Return a message of the user, from text or from blocks."""
        blocks = (Text(text=content),) if isinstance(content, str) else tuple(content)
        return cls(role=Role.USER, content=blocks)

    @classmethod
    def assistant(cls, content: str | Iterable[Any]) -> Message:
        """Return a message of the model, from text or from blocks.

        Example:
            >>> mn.Message.assistant("Hello.").role.value
            'assistant'
        """
        blocks = (Text(text=content),) if isinstance(content, str) else tuple(content)
        return cls(role=Role.ASSISTANT, content=blocks)

    def text(self) -> str:
        """Return all text blocks, joined without a separator."""
        return "".join(block.text for block in self.content if isinstance(block, Text))

    def tool_uses(self) -> list[ToolUse]:
        """Return the calls in the message, in order.

        Example:
            >>> mn.Message.assistant([mn.content.ToolUse(id="1", name="read")]).tool_uses()[0].name
            'read'
        """
        return [block for block in self.content if isinstance(block, ToolUse)]

    def tool_results(self) -> list[ToolResult]:
        """Return the results in the message, in order.

        Example:
            >>> mn.Message.user("Hello.").tool_results()
            []
        """
        return [block for block in self.content if isinstance(block, ToolResult)]

    def call_ids(self) -> tuple[str, ...]:
        """Return the ids of its calls, in order."""
        return tuple(block.id for block in self.content if isinstance(block, ToolUse))

    def encoded(self, wire: str, encode: Callable[[Message], T]) -> T:
        """Return this message in the form of a wire: `encode(self)`, computed at most once per wire."""
        # bypasses pydantic's attribute lookup: this runs for every message of a conversation at every request
        forms: dict[str, T] = self.__pydantic_private__["_encoded"]  # type: ignore[index]  # always set
        form = forms.get(wire)
        if form is None:
            form = forms[wire] = encode(self)
        return form

    def form(self, wire: str) -> Any:
        """Return the form kept for a wire, or `None`."""
        return self._encoded.get(wire)

    @property
    def last_wire(self) -> str:
        """The wire this was most recently encoded for, for the first time; empty if never encoded."""
        return next(reversed(self._encoded), "")

    def has_images(self) -> bool:
        """Return whether it has a picture, including in the result of a tool.

        Example:
            >>> mn.Message.user("Hello.").has_images()
            False
        """
        return any(isinstance(block, Image) or getattr(block, "images", ()) for block in self.content)


class Sendable(Protocol):
    """What a wire reads of a message: a `Message`, or a stand-in that loads the whole of it only when needed.

    The members mean what they mean in `Message`.
    """

    @property
    def role(self) -> Role: ...
    @property
    def content(self) -> tuple[ContentBlock, ...]: ...
    def text(self) -> str: ...
    def tool_uses(self) -> list[ToolUse]: ...
    def tool_results(self) -> list[ToolResult]: ...
    def call_ids(self) -> tuple[str, ...]: ...
    def has_images(self) -> bool: ...
    def encoded(self, wire: str, encode: Callable[[Sendable], T]) -> T: ...


class Conversation(Sequence[Sendable]):
    """Messages to send, of which the first may be there as they were last sent."""

    @abstractmethod
    def sent(self, wire: str) -> tuple[Sequence[tuple[str, ...]], Sequence[Any]]:
        """Return the ids of calls in the first messages, and their forms on a wire; nothing if a form is missing."""


class TokenUsage(Data):
    """Tokens of one model response, as the provider counted them. `None` means it gave no count.

    Cached tokens are part of `input_tokens`, except from the provider `anthropic`, which counts them separately.
    `reasoning_tokens` are part of `output_tokens`; `thoughts_tokens` are not, nor `tool_input_tokens` part of
    `input_tokens`.

    Example:
        >>> total = mn.TokenUsage(input_tokens=100) + mn.TokenUsage(input_tokens=20, output_tokens=8)
        >>> total.input_tokens, total.output_tokens, total.reasoning_tokens
        (120, 8, None)
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    reasoning_tokens: int | None = None
    thoughts_tokens: int | None = None
    tool_input_tokens: int | None = None
    cost_usd: float | None = None
    """What the provider says the response costs, in US dollars."""

    @model_serializer(mode="wrap")
    def _without_empty_cost(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a cost that is not known, as earlier versions wrote none."""
        members: dict[str, Any] = serialize(self)
        if self.cost_usd is None:
            members.pop("cost_usd", None)
        return members

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Only what was counted."""
        return ((name, value) for name, value in super().__repr_args__() if value is not None)

    def is_empty(self) -> bool:
        """Return whether nothing was counted.

        Example:
            >>> mn.TokenUsage().is_empty()
            True
        """
        return all(value is None for value in self.__dict__.values())

    def __add__(self, other: TokenUsage) -> TokenUsage:
        """Add field by field; a count that is `None` on both sides stays `None`, the cost if it is on one of them."""
        if self.is_empty() or other.is_empty():
            return other if self.is_empty() else self
        mine, theirs = self.__dict__, other.__dict__
        if self.cost_usd is None or other.cost_usd is None:
            mine, theirs = mine | {"cost_usd": None}, theirs | {"cost_usd": None}
        return TokenUsage(
            **{
                key: None if mine[key] is None and theirs[key] is None else (mine[key] or 0) + (theirs[key] or 0)
                for key in mine
            }
        )


def prompt_tokens(provider: str, usage: TokenUsage) -> int:
    """Return the tokens of the request that was answered, cached ones included."""
    prompt = (usage.input_tokens or 0) + (usage.tool_input_tokens or 0)
    if provider == "anthropic":  # its input_tokens exclude cached ones
        prompt += (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    return prompt
