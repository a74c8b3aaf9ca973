"""Post-execution hooks: asked when a tool has run, before the model reads its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from mentra_nb.content import Image


@dataclass(frozen=True)
class PostExecutionContext:
    """A call that has run. `content` and `images` are its whole result, or what an earlier hook made of it."""

    agent_id: str
    tool_name: str
    tool_call_id: str
    input: dict[str, Any]
    """The arguments that it ran with."""
    working_directory: str
    content: Any
    images: tuple[Image, ...]
    is_error: bool


@dataclass(frozen=True)
class PostExecutionDecision:
    """`keep` the result, or `replace` it: the model reads `content`, which may be all that a tool may return.

    Example:
        >>> mn.PostExecutionDecision("replace", "[left out]")
        PostExecutionDecision(outcome='replace', content='[left out]')
    """

    outcome: Literal["keep", "replace"]
    content: Any = None


class PostExecutionHook(Protocol):
    """Decide what a model reads of a result; the record keeps the original.

    Hooks are asked in order, each about what those before it left. When one raises, the model reads nothing of the
    result but that it is withheld.

    Example:
        >>> class WithoutNames:
        ...     async def after_execution(self, context):
        ...         if "Smith" not in str(context.content):
        ...             return mn.PostExecutionDecision("keep")
        ...         return mn.PostExecutionDecision("replace", str(context.content).replace("Smith", "N."))
        >>> runtime = mn.Runtime(post_hooks=[WithoutNames()])
    """

    async def after_execution(self, context: PostExecutionContext) -> PostExecutionDecision:
        """Return what the model is to read."""
        ...
