"""Frames of the record as they are shown: what a person reads first, never ids in place of answers."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from mentra_nb.record.read.columns import columns

NAMES = ["turns", "decisions", "tool_calls", "sessions", "model_calls", "usage", "events"]


def frame_of(name: str, rows: int = 3) -> pd.DataFrame:
    """Return a frame with the columns of a view and a long text in each of them."""
    names = columns(name).column.tolist()
    frame = pd.DataFrame({each: [f"{each} {'x' * 60}"] * rows for each in names})
    frame[names[0]] = pd.Timestamp("2026-03-01T14:30:15.123456", tz="UTC")
    frame.attrs["mentra_nb"] = True
    return frame


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [1, 3, 200])
def test_the_first_columns_are_shown_and_the_others_named(shell: Any, name: str, rows: int) -> None:
    frame = frame_of(name, rows)
    shown = shell.display_formatter.format(frame)[0]
    text, page = shown["text/plain"], shown["text/html"]
    table, _, note = text.partition("\n\n")
    head = table.splitlines()[0].split()
    assert head == list(frame.columns[: len(head)])
    assert len(head) >= 3
    assert max(map(len, table.splitlines())) <= 80
    assert note == f"[{rows} rows, {len(frame.columns)} columns; not shown: {', '.join(frame.columns[len(head) :])}]"
    heads = [line.strip() for line in page.splitlines() if line.strip().startswith("<th>")]
    assert heads[1 : len(head) + 1] == [f"<th>{column}</th>" for column in head]
    assert all(f"<th>{column}</th>" not in page for column in frame.columns if column.endswith("_id"))
    assert '<p class="tex2jax_ignore mathjax_ignore">[' in page
    assert "2026-03-01 14:30:15 " in text
    assert "14:30:15.123456" in repr(frame)  # the frame itself has all of it


def test_a_frame_that_fits_or_is_to_be_shown_whole_is_left_to_pandas(shell: Any) -> None:
    frame = frame_of("turns")
    few = frame[["prompt"]]
    assert shell.display_formatter.format(few)[0]["text/plain"] == repr(few)
    with pd.option_context("display.max_columns", None):
        assert shell.display_formatter.format(frame)[0]["text/plain"] == repr(frame)
    turned = frame.T
    assert shell.display_formatter.format(turned)[0]["text/plain"] == repr(turned)
