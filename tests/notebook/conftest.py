"""Fixtures of a notebook without a kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kits.shells import loaded_shell


@pytest.fixture
def shell() -> Iterator[Any]:
    """A shell with the extension loaded."""
    with loaded_shell() as shell:
        yield shell
