"""Fixtures of a notebook without a kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kits.shells import Mentra, loaded_shell

from mentra_nb.chat.engine import reset


@pytest.fixture
def shell() -> Iterator[Any]:
    """A shell with the extension loaded."""
    with loaded_shell() as shell:
        yield shell


@pytest.fixture
def mentra(shell: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mentra]:
    """Return `%mentra` in a folder and a home of this test."""
    monkeypatch.setenv("MENTRA_HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    reset()
    yield lambda line: shell.run_line_magic("mentra", line)
    reset()
