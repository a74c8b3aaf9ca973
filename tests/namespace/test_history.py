"""What is said before code runs, the bounds of what is kept, and how undoing meets what others have changed."""

from __future__ import annotations

import random
import sqlite3
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mentra_nb.namespace import history as history_module
from mentra_nb.namespace import walk
from mentra_nb.namespace.code import beyond_code
from mentra_nb.namespace.describe import describe
from mentra_nb.namespace.history import History
from mentra_nb.namespace.snapshot import Snapshot


def edit(history: History, turn: str, code: str) -> None:
    with history.watching(turn, f"call-of-{turn}"):
        exec(code, history.namespace)


def said(namespace: dict[str, Any]) -> dict[str, str]:
    return {each.name: each.why for each in History(namespace).beyond()}


def test_what_cannot_be_restored_is_named_by_kind(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(walk, "MAX_WALKED", 100)
    monkeypatch.setattr(walk, "MAX_COPIED", 1000)
    mapped = np.memmap(tmp_path / "m", dtype="u1", mode="w+", shape=4)
    namespace = {
        "db": sqlite3.connect(":memory:"),
        "holds": {"inside": iter([1])},
        "large": np.zeros(1000),
        "small": np.zeros(10),
        "mapped": mapped,
        "many": list(range(200)),
        "text": "a",
        "frame": pd.DataFrame({"a": [1]}),
    }
    assert said(namespace) == {
        "db": "a sqlite3.Connection",
        "holds": "a list_iterator",
        "large": "0 MiB, too large to copy",
        "mapped": "a numpy.memmap",
        "many": "a list of 200 elements",
    }
    objects = pd.DataFrame({"o": pd.Series([[n] for n in range(200)], dtype=object)})
    assert said({"objects": objects}) == {"objects": "objects in its columns"}


def test_a_frame_on_the_memory_of_an_array_that_is_too_large_is_named_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "MAX_COPIED", 100)
    array = np.zeros((100, 2))
    frame = pd.DataFrame(array, copy=False)
    assert {"array", "frame"} <= set(said({"array": array, "frame": frame}))
    assert "fresh" not in said({"array": np.zeros(2), "fresh": pd.DataFrame(np.zeros((2, 2)))})


def test_no_code_of_the_user_is_called() -> None:
    class Loud:
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(name)

        __repr__ = __eq__ = __hash__ = __iter__ = __len__ = __getattribute__  # type: ignore[assignment]

    class LoudList(list[Any]):
        def __iter__(self) -> Any:
            raise AssertionError

        __len__ = __getitem__ = __eq__ = __iter__  # type: ignore[assignment]

    Loud.__module__ = LoudList.__module__ = "__main__"
    namespace: dict[str, Any] = {"loud": Loud(), "items": LoudList([Loud()]), "keyed": {1: Loud()}}
    history = History(namespace)
    with history.watching("turn", "call"):
        list.append(namespace["items"], 1)
    assert history.calls[0].changes.changed == ("items",)
    assert history.undo("turn", "undo").names == ("items",)
    assert list.__len__(namespace["items"]) == 1
    assert describe(namespace).splitlines()[0] == "loud: test_no_code_of_the_user_is_called.<locals>.Loud"


def test_the_oldest_call_is_dropped_when_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.zeros(1000)  # 8 kB, of which the values before and after a change are kept
    monkeypatch.setattr(history_module, "MAX_HELD", 60_000)
    history = History({"array": array})
    for number in range(5):
        edit(history, f"turn-{number}", "array += 1")
    assert history.turns() == ["turn-2", "turn-3", "turn-4"]
    assert [each.dropped for each in history.calls] == [0, 1, 1]
    history.undo("turn-4", "undo-4")
    history.undo("turn-3", "undo-3")
    assert array[0] == 3
    assert list(map(str, history.cannot("turn-0"))) == ["array (no room for what it was)"]


def test_a_turn_whose_first_call_was_dropped_says_that_it_is_not_restored_in_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(history_module, "MAX_HELD", 20_000)
    history = History({"array": np.zeros(1000)})
    edit(history, "turn", "array += 1")
    edit(history, "turn", "array += 1")
    restored = history.undo("turn", "undo")
    assert history.namespace["array"][0] == 1
    assert list(map(str, restored.lost)) == ["array (no room for what it was)"]


def test_a_call_for_which_there_is_no_room_cannot_be_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "MAX_HELD", 10_000)
    history = History({"array": np.zeros(1000), "items": [1]})
    edit(history, "small", "items.append(2)")
    with history.watching("large", "call") as watched:
        history.namespace["array"] += 1
    assert (watched.dropped, watched.too_large, history.turns()) == (1, True, [])


def test_what_a_call_left_alone_is_not_kept() -> None:
    history = History({"array": np.zeros(1000), "items": [1]})
    edit(history, "turn", "items.append(2)")
    assert history.calls[0].before.held() < 100
    edit(history, "another", "1 + 1")
    assert history.turns() == ["turn"]


def test_a_name_that_was_changed_since_is_left_alone_with_all_it_leads_to() -> None:
    namespace: dict[str, Any] = {"items": [[1]], "other": {"a": 1}, "frame": pd.DataFrame({"a": [1, 2]})}
    namespace["same"] = namespace["items"]
    history = History(namespace)
    edit(history, "turn", "items[0].append(2); other['b'] = 2; frame.loc[0, 'a'] = 9; made = 1")
    namespace["same"][0].append(3)
    namespace["made"] = 2
    assert set(history.conflicts("turn")) == {"items", "same", "made"}
    restored = history.undo("turn", "undo")
    assert set(restored.names) == {"other", "frame"}
    assert namespace["items"] == [[1, 2, 3]]
    assert (namespace["other"], namespace["frame"].a.tolist(), namespace["made"]) == ({"a": 1}, [1, 2], 2)


def test_turns_are_undone_one_after_the_other_and_again() -> None:
    namespace: dict[str, Any] = {"n": 0, "items": [0]}
    history = History(namespace)
    for number in (1, 2):
        edit(history, f"turn-{number}", f"n = {number}; items.append({number})")
    for turn, by, expected in (
        ("turn-2", "undo-1", (1, [0, 1])),
        ("turn-1", "undo-2", (0, [0])),
        ("undo-2", "undo-3", (1, [0, 1])),
        ("undo-1", "undo-4", (2, [0, 1, 2])),
        ("turn-2", "undo-5", (1, [0, 1])),
    ):
        assert history.undo(turn, by).conflicts == ()
        assert (namespace["n"], namespace["items"]) == expected


@pytest.mark.skipif(int(pd.__version__.split(".")[0]) < 3, reason="before pandas 3 frames are copied")
def test_a_snapshot_of_a_large_namespace_is_quick() -> None:
    import time

    namespace = {f"frame{n}": pd.DataFrame(np.ones((100_000, 11))) for n in range(10)}
    namespace |= {f"dict{n}": {key: str(key) for key in range(500)} for n in range(10)}  # type: ignore[misc]
    times = []
    for _ in range(20):
        began = time.thread_time()
        Snapshot.take(namespace)
        times.append(time.thread_time() - began)
    assert min(times) < 0.005


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("s.array[0] = 9", [".array"]),
        ("def f(s):\n    s.array[0] = 9\nawait g()", [".array"]),
        ("df.flags.allows_duplicate_labels = False", [".allows_duplicate_labels"]),
        ("C.__qualname__ = 'D'; f.__annotations__['x'] = int", [".__annotations__", ".__qualname__"]),
        ("df.iloc[0, 0] = 9; array = np.array([1])", []),
        ("s.array.fill(9)", [".array"]),
        ("array[0] = 1", []),
        ("not python", []),
    ],
)
def test_what_code_may_change_past_every_snapshot_is_named_beforehand(code: str, named: list[str]) -> None:
    assert [each.name for each in beyond_code(code)] == named


@pytest.mark.skipif(int(pd.__version__.split(".")[0]) < 3, reason="before pandas 3 frames are copied")
def test_writing_to_the_array_of_a_column_is_not_restored() -> None:
    names: dict[str, Any] = {"s": pd.Series([1, 2, 3])}
    history = History(names)
    edit(history, "turn", "s.array[0] = 9")
    history.undo("turn", "undone")
    assert names["s"].tolist() == [9, 2, 3]


def test_a_generator_without_a_state_is_left_alone() -> None:
    names: dict[str, Any] = {"rng": random.SystemRandom(), "n": 1}
    history = History(names)
    edit(history, "turn", "n = rng.randrange(5, 9)")
    assert history.undo("turn", "undone").conflicts == ()
    assert names["n"] == 1
