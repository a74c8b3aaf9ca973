"""Loading the extension into a shell: what it shows, without a kernel."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell

from mentra_nb.chat import engine
from mentra_nb.chat.reply import Reply
from mentra_nb.content import TokenUsage
from mentra_nb.errors import HttpError
from mentra_nb.notebook import extension


def html(shell: Any, frame: pd.DataFrame) -> str:
    found: str = shell.display_formatter.format(frame)[0]["text/html"]
    return found


def test_only_frames_of_the_record_are_closed_to_mathjax(shell: Any) -> None:
    frame = pd.DataFrame({"prompt": ["$x$"]})
    assert "mathjax_ignore" not in html(shell, frame)
    frame.attrs["mentra_nb"] = True
    for derived in (frame, frame[["prompt"]], frame.head(1), frame.query("prompt == '$x$'")):
        assert "mathjax_ignore" in html(shell, derived)
    extension.unload(shell)
    assert "mathjax_ignore" not in html(shell, frame)


def test_frames_of_the_record_print_no_terminal_codes(shell: Any) -> None:
    frame = pd.DataFrame({"prompt": ["\x1b]52;c;aGVsbG8=\x07"]})
    assert "\x1b" in shell.display_formatter.format(frame)[0]["text/plain"]
    frame.attrs["mentra_nb"] = True
    assert "␛]52;c;aGVsbG8=␇" in shell.display_formatter.format(frame)[0]["text/plain"]
    extension.unload(shell)
    assert "\x1b" in shell.display_formatter.format(frame)[0]["text/plain"]


@pytest.mark.parametrize("value", [None, "\x1b[31m"])
def test_a_reply_prints_no_terminal_codes_without_the_extension(value: Any) -> None:
    text = "\x1b]52;c;aGVsbG8=\x07 broken"
    reply = Reply(text, "m", "s", "t", "end", 0.0, TokenUsage(), value=value)
    shown = InteractiveShell(cache_size=0).display_formatter.format(reply)[0]["text/plain"]
    assert "\x1b" not in shown
    assert ("␛" if value is None else "\\x1b") in shown


def test_completion_of_a_model_offers_prefixes_and_the_models_that_were_listed(
    shell: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MENTRA_HOME", str(tmp_path / "home"))
    engine.reset()
    engine.engine().listed.update(("lmstudio/small", "lmstudio/tiny"))
    for line, found in (
        ("%mentra -m lm", ["lmstudio/", "lmstudio/small", "lmstudio/tiny"]),
        ("%%mentra -m lmstudio/t", ["lmstudio/tiny"]),
        ("%mentra model lmstudio/", ["lmstudio/", "lmstudio/small", "lmstudio/tiny"]),
    ):
        context = SimpleNamespace(line_with_cursor=line, cursor_position=len(line))
        made = extension.complete(context)
        assert [each.text for each in made["completions"]] == found
        assert made["suppress"]
    engine.reset()


def test_the_text_of_a_server_has_no_terminal_codes_in_an_error() -> None:
    error = HttpError(500, "\x1b]52;c;aGVsbG8=\x07 broken\nline two\x9b31m")
    shown = [str(error), *error._render_traceback_()]
    assert all("\ufffd]52;c;aGVsbG8=\ufffd broken line two\ufffd31m" in text for text in shown)
