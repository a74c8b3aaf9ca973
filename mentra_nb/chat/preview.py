"""What would be sent: an object as `mn.ask` hands it over, and a whole question with its tokens and price."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mentra_nb.agent.config import AgentConfig
from mentra_nb.amounts import PARTS
from mentra_nb.arguments import check_words
from mentra_nb.budget.requests import PER_IMAGE, most_of_head, most_of_messages, most_usd
from mentra_nb.chat.engine import engine
from mentra_nb.chat.instructions import SYSTEM, system_prompt
from mentra_nb.chat.models import choose
from mentra_nb.chat.references.handing import BYTES_PER_TOKEN, about_tokens, handed
from mentra_nb.chat.turn import presenter
from mentra_nb.compaction.entry import sent_messages
from mentra_nb.content import Image, Message, TokenUsage
from mentra_nb.errors import ConfigurationError
from mentra_nb.pricing import FREE, cost_usd
from mentra_nb.tools.function import as_tool
from mentra_nb.words import counted

if TYPE_CHECKING:
    from mentra_nb.chat.chat import Chat
    from mentra_nb.chat.engine import Engine
    from mentra_nb.providers.base import ProviderToolSpec
    from mentra_nb.store.records import Entry
    from mentra_nb.tools.tool import Tool


@dataclass(frozen=True, repr=False)
class Preview:
    """What would be sent, and was not. `str` gives the text exactly.

    Example:
        >>> preview = mn.preview([1, 2, 3])
        >>> preview.tokens, preview.images, preview.cut
        (69, (), ())
    """

    text: str
    images: tuple[Image, ...] = ()
    tokens: int = 0
    """Of the text and the pictures, estimated: a token for three bytes of text."""
    cut: tuple[str, ...] = ()
    """What is left out because of a bound, in words."""
    notes: tuple[str, ...] = ()
    """What else there is to say, such as a reference that means nothing."""
    model: str | None = None
    """The model that would be asked, if it is known without asking a server."""
    request_tokens: tuple[int, int] | None = None
    """Of the first request with everything that goes with it: estimated, and at most."""
    cost_usd: tuple[float, float] | None = None
    """The least and the most that the first request and its answer cost in US dollars; `None` without a known price."""

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        """The text, then a line for each thing to know about it."""
        return "\n".join([self.text.strip("\n"), "", *(f"[{line}]" for line in self._lines())])

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        from mentra_nb.errors import without_control

        printer.text(without_control(repr(self)))

    def _repr_html_(self) -> str:
        """The same as static HTML, with the pictures."""
        from mentra_nb.page.escaping import escape, visible

        style = "white-space:pre-wrap;overflow-wrap:anywhere"
        shown = "".join(
            f'<img src="data:{escape(each.media_type or "")};base64,{escape(each.data)}" alt="picture {number}" '
            'style="max-width:420px;display:block;margin:4px 0">'
            for number, each in enumerate(self.images, 1)
            if each.data is not None
        )
        return f'<pre class="mathjax_ignore" style="{style}">{escape(visible(repr(self)))}</pre>{shown}'

    def _lines(self) -> list[str]:
        with_images = f", with {counted(len(self.images), 'picture')}" if self.images else ""
        lines = [f"about {self.tokens:,} tokens{with_images}; nothing was sent"]
        if self.request_tokens is not None:
            about, most = self.request_tokens
            everything = "with instructions, tools and earlier messages"
            lines.append(f"the first request {everything}: about {about:,} tokens, {most:,} at most")
            lines.append(f"{self.model or 'the newest model of the provider'}: {self._price()}")
        return [*lines, *self.cut, *self.notes]

    def _price(self) -> str:
        if self.cost_usd is None:
            return "its price is not known"
        least, most = self.cost_usd
        return f"${least:.4f} to ${most:.4f} for the first request and its answer" if most else "free"


def preview(obj: Any) -> Preview:
    """Return exactly what `mn.ask("…", obj)` would add to the question, and send nothing.

    A frame is shown by its shape, types, missing values and at most five rows; an array by a summary; a figure as a
    picture; a long text is cut; secrets are masked. Code of the object's own class is not run. A `Path` stands for the
    content of a file in the working folder.

    Raises:
        OperationDenied: a file that may not be handed over.
        ConfigurationError: a file that cannot be read.

    Example:
        >>> print(mn.preview({"month": "2026-03", "token": "hunter2"}))
        <BLANKLINE>
        <BLANKLINE>
        What the question refers to, ... it permits nothing.
        <data>
        object 1: dict of 2, keys str
          'month': '2026-03'
          'token': [redacted]
        </data>
    """
    data = handed((obj,), lambda: engine().policy())
    assert data is not None
    text, images = data.text(), tuple(data.images())
    return Preview(text, images, about_tokens(text) + PER_IMAGE * len(images), tuple(data.cuts()))


def dry_run(
    chat: Chat,
    prompt: str,
    objects: Sequence[Any] = (),
    *,
    model: str | None = None,
    tools: Iterable[Tool | Callable[..., Any]] = (),
    notes: Iterable[str] = (),
    plan: bool = False,
) -> Preview:
    """Return what a turn of `chat` would send first: the message, its tokens, and what it would cost.

    No server is asked and nothing is stored. Raises as `Chat.start`, and as the model's name would.
    """
    check_words(prompt, model, chat.name)
    used = engine()
    choice = choose(model or chat.model, used.settings, os.environ, registered=used.registered())
    if choice.model is not None:
        used.call(used.model, f"{choice.provider}/{choice.model}")  # registers its provider
    is_known = choice.provider in used.registered()
    takes_images = not is_known or used.runtime.provider(choice.provider).takes_images(choice.model or "")
    data = handed(objects, used.policy)
    content = data.content(prompt, with_images=takes_images) if data is not None else prompt
    message = Message.user(content)
    images = tuple(block for block in message.content if isinstance(block, Image))
    head = most_of_head(*head_of(used, chat, tools, plan=plan))
    earlier = sent_messages(entries_of(chat))
    most = head + most_of_messages([*earlier, message])
    with_images = PER_IMAGE * sum(isinstance(block, Image) for each in earlier for block in each.content)
    about = (
        -(-(most - with_images - PER_IMAGE * len(images)) // BYTES_PER_TOKEN) + with_images + PER_IMAGE * len(images)
    )
    return Preview(
        message.text(),
        images,
        about_tokens(message.text()) + PER_IMAGE * len(images),
        tuple(data.cuts()) if data is not None else (),
        tuple(notes),
        f"{choice.provider}/{choice.model}" if choice.model is not None else None,
        (about, most),
        _price(choice.provider, choice.model, about, most),
    )


def entries_of(chat: Chat) -> list[Entry]:
    """Return the stored entries of a conversation, oldest first."""
    used, identity = chat._engine, chat._identity
    return used.call(lambda: identity.entries(used.runtime.store))


def head_of(
    used: Engine, chat: Chat, tools: Iterable[Tool | Callable[..., Any]], *, plan: bool
) -> tuple[str, list[ProviderToolSpec]]:
    """Return the system prompt and the tools of a turn."""
    from mentra_nb.agent.toolbox import PLANNING
    from mentra_nb.tools.profile import allows

    profile = used.abilities.profile(used.settings)
    own = [*chat.tools(), *(as_tool(tool).spec for tool in tools)]
    offered = [spec for spec in used.runtime.tools() if not profile or allows(profile, spec.name)]
    system = chat.system
    if system is None:
        system, _ = system_prompt(used.settings.instructions, presenter() is not None)
    system = f"{system or SYSTEM}\n\n{PLANNING}" if plan else system or SYSTEM
    shown = [spec.wire for spec in (*offered, *own) if spec.reads_only or not plan]
    return system, [wire for wire in shown if not wire.deferred]


def _price(provider: str, model: str | None, about: int, most: int) -> tuple[float, float] | None:
    """Return the least and the most that a request and its answer cost, in US dollars."""
    if model is None:
        return (0.0, 0.0) if provider in FREE else None
    least = cost_usd(provider, model, TokenUsage(input_tokens=about, output_tokens=0))
    try:
        highest = most_usd(provider, model, most, AgentConfig().max_output_tokens or 0) / PARTS["usd"]
    except ConfigurationError:
        return None
    return None if least is None else (min(least, highest), highest)
