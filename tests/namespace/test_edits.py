"""Random edits of a namespace are taken back exactly, or what cannot be was said before.

`MENTRA_UNDO_EDITS` is how many; 500 by default.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import io
import math
import os
import pickle
import random
import sqlite3
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from kits.edits import BEGIN, BEYOND, CODE

from mentra_nb.namespace.history import History
from mentra_nb.namespace.snapshot import own_names

EDITS = int(os.environ.get("MENTRA_UNDO_EDITS", "500"))

WITH_ATTRIBUTES = {"Box", "Items", "Point", "Base", "Derived", "ChainMap", "SimpleNamespace", "partial"}


def frozen(value: Any, seen: dict[int, tuple[int, Any]] | None = None) -> Any:
    """Return all there is to know of a value, with which of its parts are the same object as another."""
    seen = {} if seen is None else seen
    if isinstance(value, float) and value != value:
        return "nan"
    if value is None or isinstance(value, (int, float, complex, str, bytes, np.generic, pd.Timestamp)):
        return type(value), repr(value)
    if id(value) in seen:
        return "again", seen[id(value)][0]
    seen[id(value)] = len(seen), value  # kept, so that no other object gets its id
    return type(value), *_parts(value, seen)


def _parts(value: Any, seen: dict[int, tuple[int, Any]]) -> list[Any]:
    def of(each: Any) -> Any:
        return frozen(each, seen)

    own = [of(dict(sorted(vars(value).items())))] if type(value).__name__ in WITH_ATTRIBUTES else []
    match value:
        case pd.DataFrame():
            columns = [of(value.iloc[:, n]) for n in range(value.shape[1])]
            flags = repr(value.flags), [frozen(block.values) for block in value._mgr.blocks if block.is_extension]
            types_of = [str(each) for each in value.dtypes]
            return [of(value.columns), of(value.index), columns, of(value.attrs), types_of, flags]
        case pd.Series():
            kept = of(value.name), of(value.attrs), repr(value.flags), of(value.index), frozen(value.array)
            return [str(value.dtype), *kept, [of(each) for each in value.tolist()]]
        case pd.api.extensions.ExtensionArray():
            data = [of(value._ndarray)] if isinstance(value, pd.Categorical) else []
            return [str(value.dtype), repr(value.dtype), [repr(each) for each in value.tolist()], data]
        case pd.Index():
            return [str(value.dtype), list(value.names), [repr(each) for each in value.tolist()]]
        case np.ma.MaskedArray():
            return [value.dtype, value.shape, repr(value.mask), repr(value.fill_value), of(np.asarray(value.data))]
        case np.ndarray():
            data = list(map(of, value.ravel().tolist())) if value.dtype.hasobject else value.tobytes()
            return [str(value.dtype), value.shape, data, value.flags.writeable]
        case types.ModuleType() if value.__name__ == "tool":
            return [of(dict(sorted(vars(value).items())))]
        case types.ModuleType():
            modules = types.ModuleType
            return [{k: id(v) for k, v in vars(value).items() if k[0] != "_" and not isinstance(v, modules)}]
        case functools.partial():
            return [value.func, of(value.args), of(value.keywords), *own]
        case collections.deque():
            return [value.maxlen, [of(each) for each in value]]
        case dict():
            return [[(of(k), of(v)) for k, v in value.items()], getattr(value, "default_factory", None)]
        case list() | tuple() | bytearray():
            return [*[of(each) for each in list(value)], *own]
        case set() | frozenset():
            return sorted(map(repr, map(of, value)))
        case types.FunctionType():
            cells = [of(cell.cell_contents) for cell in value.__closure__ or ()]
            about = value.__code__, value.__name__, value.__doc__
            return [of(value.__defaults__), of(value.__kwdefaults__), cells, of(value.__dict__), about]
        case type():
            found = [(k, repr(of(v)) if isinstance(v, (list, dict)) else id(v)) for k, v in vars(value).items()]
            return [value.__name__, value.__qualname__, sorted(found)]
        case np.random.Generator():
            return [repr(value.bit_generator.state)]
        case random.Random():
            return [value.getstate()]
        case io.StringIO():
            return [value.getvalue()]
        case sqlite3.Connection():
            return value.execute("select name from sqlite_master").fetchall()
        case types.GeneratorType():
            return [value.gi_frame is None or value.gi_frame.f_lasti]
    if hasattr(value, "__length_hint__"):
        return [value.__length_hint__()]
    if type(value).__name__ in ("Slim", "Lean"):
        return [of(getattr(value, name, "unset")) for name in ("a", "b")]
    return own or [repr(value)]


def begun() -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(BEGIN + BEYOND, namespace)
    return namespace


def state_of_process() -> dict[str, Any]:
    """Return the state of the process by the names it has for a user."""
    options = [repr(pd.get_option(name)) for name in ("display.max_rows", "display.precision")]
    return {
        "os.environ": dict(os.environ),
        "sys.path": list(sys.path),
        "the working folder": Path.cwd(),
        "the state of random": random.getstate(),
        "the state of numpy.random": pickle.dumps(np.random.get_state()),
        "warnings.filters": list(warnings.filters),
        "pandas.options": options,
        "matplotlib.rcParams": {name: each for name, each in dict.items(mpl.rcParams) if name != "backend"},
    }


def pictures(namespace: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Return each value of a namespace, and each piece of the process's state, as it is; and all of them together."""
    own, state = own_names(namespace), state_of_process()
    return {name: frozen(value) for name, value in own.items()} | state, (_together(own), state)


def _together(own: dict[str, Any]) -> Any:
    return frozen([own[name] for name in sorted(own)])


@contextlib.contextmanager
def process_kept() -> Iterator[None]:
    """Leave the process as it was, whatever happens inside."""
    state, numpy, pandas = state_of_process(), np.random.get_state(), pd.get_option("display.max_rows")
    modules = [(module, dict(vars(module))) for module in (math, np)]
    with (
        pd.option_context("display.max_rows", pandas, "display.precision", 6),
        mpl.rc_context(),
        warnings.catch_warnings(),
    ):
        yield
    os.environ.clear()
    os.environ.update(state["os.environ"])
    sys.path[:] = state["sys.path"]
    os.chdir(state["the working folder"])
    random.setstate(state["the state of random"])
    np.random.set_state(numpy)
    for module, before in modules:
        vars(module).update(before)


@pytest.mark.slow
@pytest.mark.timeout(120 + EDITS // 4)
@pytest.mark.filterwarnings("ignore")
def test_random_edits_are_taken_back_or_announced() -> None:
    with process_kept():
        exact, announced = edited()
    print(f"{exact} of {EDITS} exactly, {announced} announced", file=sys.stderr)
    assert exact >= 0.95 * EDITS
    assert announced > 0


def edited() -> tuple[int, int]:
    """Make the edits and take each back. Return how many came back exactly, and how many not, but were announced."""
    chosen, exact, announced = random.Random(20261129), 0, 0
    namespace = begun()
    picture, whole = pictures(namespace)
    for number in range(EDITS):
        lines = [CODE[number]] if number < len(CODE) else chosen.choices(CODE, k=chosen.randint(1, 4))
        history, before = History(namespace), own_names(namespace)
        said = {each.name for each in history.beyond()}
        with history.watching("turn", "call"):
            for line in lines:
                with contextlib.suppress(Exception):  # an edit may not fit after another
                    exec(line, namespace)
        assert not history.undo("turn", "undo").conflicts, lines
        after = own_names(namespace)
        assert sorted(after) == sorted(before), lines
        assert all(after[name] is before[name] for name in before), lines
        if (_together(after), state_of_process()) == whole:  # also what was one object is one
            exact += 1
            continue
        announced += 1
        now = pictures(namespace)[0]
        wrong = {name for name in picture if now[name] != picture[name]}
        assert wrong, lines
        assert wrong <= said, (lines, wrong)
        namespace = begun()
        picture, whole = pictures(namespace)
    return exact, announced
