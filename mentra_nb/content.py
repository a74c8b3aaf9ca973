"""What a conversation is made of: roles, content blocks, messages, token counts. Frozen data, JSON round-trip.

No behaviour of a provider, a tool or a screen lives here.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar, dataclass_transform

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field, PrivateAttr))
class _Frozen(ModelMetaclass):
    """Tells type checkers that the fields of `Data` cannot be assigned: they do not read `model_config`."""


class Data(BaseModel, metaclass=_Frozen):
    """A frozen record. Unknown keys are ignored on load, so that newer files still open."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class Role(StrEnum):
    USER = "user"
    ASSISTANT = "assistant"


class Text(Data):
    type: Literal["text"] = "text"
    text: str


class Image(Data):
    """A picture: base64 `data` with its `media_type`, or a `url`."""

    type: Literal["image"] = "image"
    media_type: str | None = None
    data: str | None = None
    url: str | None = None

    @classmethod
    def from_bytes(cls, media_type: str, raw: bytes) -> Image:
        return cls(media_type=media_type, data=base64.b64encode(raw).decode("ascii"))


class Thinking(Data):
    """Reasoning a model showed. `signature`/`encrypted` are opaque and go back to the same provider and model only."""

    type: Literal["thinking"] = "thinking"
    text: str = ""
    id: str | None = None
    signature: str | None = None
    encrypted: str | None = None
    provider: str | None = None
    model: str | None = None


class ToolUse(Data):
    """A call the model asked for. `error` is set, and `input` empty, when its arguments were not a JSON object."""

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
    """Pictures that belong to the result, shown after its content."""

    def display(self) -> str:
        """The result as text: itself, or compact JSON."""
        if isinstance(self.content, str):
            return self.content
        return json.dumps(self.content, ensure_ascii=False, separators=(",", ":"))


class Opaque(Data):
    """Part of an answer that only its provider understands, such as a hosted search: as JSON text, and never shown.

    It goes back as it came, to the same provider and model only.
    """

    type: Literal["opaque"] = "opaque"
    data: str
    provider: str | None = None
    model: str | None = None


ContentBlock = Annotated[Text | Image | Thinking | ToolUse | ToolResult | Opaque, Field(discriminator="type")]


class Message(Data):
    """One message of a conversation. Its wire forms are computed once and kept on it."""

    role: Role
    content: tuple[ContentBlock, ...]
    _encoded: dict[str, Any] = PrivateAttr(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        """Whether they say the same, sent or not."""
        return isinstance(other, Message) and (self.role, self.content) == (other.role, other.content)

    def __hash__(self) -> int:
        return hash((self.role, self.content))

    @classmethod
    def user(cls, content: str | Iterable[Any]) -> Message:
        blocks = (Text(text=content),) if isinstance(content, str) else tuple(content)
        return cls(role=Role.USER, content=blocks)

    @classmethod
    def assistant(cls, content: str | Iterable[Any]) -> Message:
        blocks = (Text(text=content),) if isinstance(content, str) else tuple(content)
        return cls(role=Role.ASSISTANT, content=blocks)

    def text(self) -> str:
        """All text blocks, joined without a separator."""
        return "".join(block.text for block in self.content if isinstance(block, Text))

    def tool_uses(self) -> list[ToolUse]:
        return [block for block in self.content if isinstance(block, ToolUse)]

    def tool_results(self) -> list[ToolResult]:
        return [block for block in self.content if isinstance(block, ToolResult)]

    def encoded(self, wire: str, encode: Callable[[Message], T]) -> T:
        """This message in a wire's form: `encode(self)`, computed at most once per wire."""
        # read past pydantic's attribute lookup: this runs for every message of a conversation at every request
        forms: dict[str, T] = self.__pydantic_private__["_encoded"]  # type: ignore[index]  # there is one
        form = forms.get(wire)
        if form is None:
            form = forms[wire] = encode(self)
        return form

    def form(self, wire: str) -> Any:
        """Its form for that wire, `None` when it was not encoded for it."""
        return self._encoded.get(wire)

    @property
    def last_wire(self) -> str:
        """The wire that `encoded` first met last; empty when there was none."""
        return next(reversed(self._encoded), "")

    def has_images(self) -> bool:
        """Whether a picture is in it, also as part of a tool's result."""
        return any(isinstance(block, Image) or getattr(block, "images", ()) for block in self.content)


class TokenUsage(Data):
    """Tokens of one model response, as the provider counted them. `None` means it did not say.

    Cached tokens are part of `input_tokens`, except from the provider `anthropic`, which counts them apart.
    `reasoning_tokens` are part of `output_tokens`; `thoughts_tokens` come on top of them, and `tool_input_tokens` on
    top of `input_tokens`.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    reasoning_tokens: int | None = None
    thoughts_tokens: int | None = None
    tool_input_tokens: int | None = None

    def is_empty(self) -> bool:
        return all(value is None for value in self.__dict__.values())

    def __add__(self, other: TokenUsage) -> TokenUsage:
        """Field by field; a count neither side knows stays `None`."""
        mine, theirs = self.__dict__, other.__dict__
        return TokenUsage(
            **{
                key: None if mine[key] is None and theirs[key] is None else (mine[key] or 0) + (theirs[key] or 0)
                for key in mine
            }
        )
