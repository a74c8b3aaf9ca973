"""`%%mentra --map FRAME`: a question about each row, from a cell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mentra_nb.chat.engine import engine, reset
from mentra_nb.errors import ConfigurationError
from mentra_nb.notebook.extension import _Names
from mentra_nb.notebook.grammar import completions
from mentra_nb.providers.scripted import ScriptedProvider, text


@pytest.fixture
def asked(shell: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedProvider]:
    monkeypatch.setenv("MENTRA_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    reset()
    provider = ScriptedProvider([text("yes"), text("yes")])
    engine().use(provider, "scripted")
    shell.user_ns["cities"] = pd.DataFrame({"city": ["Oslo", "Bergen"]})
    yield provider
    reset()


def test_each_row_is_asked_and_the_frame_comes_back(asked: ScriptedProvider, shell: Any) -> None:
    found = shell.run_cell_magic("mentra", "--map cities", "Is {city} in Norway?")
    assert found[["city", "answer"]].values.tolist() == [["Oslo", "yes"], ["Bergen", "yes"]]
    sent = sorted(request.messages[-1].text() for request in asked.recorded_requests)
    assert sent == ["Is Bergen in Norway?", "Is Oslo in Norway?"]
    stored = shell.run_cell_magic("mentra", "--map cities -o norway", "Is {city} in Norway?")  # answered already
    assert stored is None
    assert shell.user_ns["norway"].answer.tolist() == ["yes", "yes"]
    assert len(asked.recorded_requests) == 2


def test_nothing_is_asked_for_a_dry_run_or_a_mistake(asked: ScriptedProvider, shell: Any) -> None:
    shell.run_cell_magic("mentra", "--map cities --dry", "Is {city} in Norway?")
    for line, words in (
        ("--map towns", "there is no 'towns' in this notebook to map over"),
        ("--map cities --no-tools", "leave --no-tools out"),
        ("--map cities -s x", "leave --session out"),
        ("--map", "--map needs a value"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            shell.run_cell_magic("mentra", line, "Is {city} in Norway?")
    with pytest.raises(ConfigurationError, match="town"):
        shell.run_cell_magic("mentra", "--map cities", "Is {town} in Norway?")
    assert asked.recorded_requests == []


def test_frames_are_offered(asked: ScriptedProvider, shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    assert "cities" in completions("%%mentra --map ci", _Names("ci"))[0]
