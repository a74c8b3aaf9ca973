"""A response of HTTP, as providers read it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple


class Response(NamedTuple):
    """A response whose body is still arriving: `chunks` are its decompressed bytes, in the pieces they came in."""

    status: int
    headers: Mapping[str, str]
    """Names are lower case."""
    chunks: AsyncIterator[bytes]
