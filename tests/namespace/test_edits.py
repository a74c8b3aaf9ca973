"""Random edits of a namespace are taken back exactly, or what cannot be was said before.

`MENTRA_UNDO_EDITS` is how many; 500 by default.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import sqlite3
import sys
import types
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mentra_nb.namespace.history import History
from mentra_nb.namespace.snapshot import own_names

EDITS = int(os.environ.get("MENTRA_UNDO_EDITS", "500"))

BEGIN = """
import collections, io, random, sqlite3
import numpy as np
import pandas as pd
df = pd.DataFrame({"n": [3, 1, 2, 5], "x": [1.5, None, -0.0, 4.0], "s": ["a", None, "c", "d"],
                   "o": pd.Series([[1], {"k": 2}, {3}, None], dtype=object),
                   "t": pd.date_range("2026-01-01", periods=4), "c": pd.Categorical(["u", "v", "u", "v"])})
df.attrs["source"] = ["file"]
same = df
multi = df[["n", "x"]].set_index(pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1), ("b", 2)], names=["p", "q"]))
col = df["n"]
rows = df.index
ser = pd.Series([1.0, 2.0, 3.0], index=pd.Index(["i", "j", "k"], name="key"), name="v")
arr = np.arange(12.0)
view = arr[2:6]
grid = np.arange(12).reshape(3, 4).T
objs = np.array([[1], {"a": 1}, None], dtype=object)
recs = np.zeros(3, dtype=[("a", "i4"), ("b", "f8")])
masked = np.ma.array([1, 2, 3], mask=[0, 1, 0])
shared = np.zeros((3, 2))
over = pd.DataFrame(shared, columns=["a", "b"], copy=False)
nums = [3, 1, 2]
deep = [[1, 2], {"a": [3]}, (4, [5]), df]
also = deep[0]
conf = {"a": 1, "b": {"c": [1]}, "f": ser}
ordered = collections.OrderedDict(a=1, b=2)
groups = collections.defaultdict(list, a=[1])
counts = collections.Counter("abca")
tags = {"x", "y", 3}
line = collections.deque([1, 2, 3], maxlen=4)
raw = bytearray(b"abc")
pair = (1, [2], {"k": 3})
class Box:
    kind = "box"
    made = []
    def __init__(self, inside):
        self.inside, self.log = inside, []
    def put(self, value):
        self.inside.append(value); self.log.append("put")
class Slim:
    __slots__ = ("a", "b")
class Items(list):
    def append(self, value):
        raise RuntimeError("code of the user")
box = Box([1, 2])
twin = box
slim = Slim(); slim.a = [1]
items = Items([1, 2]); items.note = "n"
def counter():
    count = 0
    def step(seen=[]):
        nonlocal count
        count += 1; seen.append(count)
        return count
    return step
step = counter()
rng = np.random.default_rng(1)
dice = random.Random(1)
number, text, flag = 1, "a", None
"""

BEYOND = """
db = sqlite3.connect(":memory:")
stream = io.StringIO("one")
gen = iter([1, 2, 3])
"""

CODE = """
df.loc[0, "n"] = 99
df.iloc[1:3, 1] = 7.0
df.at[2, "s"] = "zz"
df["new"] = 1
df["n"] = df["n"].astype(float)
df["n"] *= 2
del df["x"]
df.pop("s")
df.insert(0, "first", [1, 2, 3, 4])
df.sort_values("n", inplace=True)
df.sort_values("n", ascending=False, inplace=True, ignore_index=True)
df.rename(columns={"n": "m"}, inplace=True)
df.reset_index(inplace=True)
df.set_index("n", inplace=True)
df.dropna(inplace=True)
df.fillna({"x": 0.5}, inplace=True)
df.drop(index=[0], inplace=True)
df.drop_duplicates(subset=["c"], inplace=True)
df.query("n > 1", inplace=True)
df.eval("w = n * 2", inplace=True)
df.loc[10] = [1, 2.0, "q", None, pd.Timestamp("2026-02-02"), "u"]
df.columns = list("abcdef")
df.columns.name = "cols"
df.index = list("wxyz")
df.index.name = "row"
df.attrs["source"].append("again")
df.attrs["more"] = 1
df.update(pd.DataFrame({"n": [8]}))
df.mask(df["n"] > 2, inplace=True)
df.loc[0, "o"].append(5)
df["o"].iloc[1]["k"] = 5
df.loc[:, "n"] = [4, 3, 2, 1]
df.iloc[:, 0] = 0
df["c"] = df["c"].cat.add_categories(["w"])
df.loc[df["n"] > 1, ["n", "x"]] = 5
df[["n", "x"]] = df[["x", "n"]].to_numpy()
df = df.head(2)
df = df.copy()
same["z"] = 1
same.drop(columns=["n"], inplace=True)
del same
same = None
multi.loc[("a", 1), "x"] = 100.0
multi.sort_index(level="q", ascending=False, inplace=True)
multi.index.names = ["l", "r"]
multi = multi.reset_index()
col.iloc[0] = 50
col.name = "renamed"
ser.iloc[0] = -1.0
ser["new"] = 5.0
ser.sort_values(ascending=False, inplace=True)
ser.index = [1, 2, 3]
ser.index.name = "other"
ser.name = "w"
ser.drop("i", inplace=True)
ser.fillna(0.0, inplace=True)
ser *= 2
ser = ser.astype(int)
arr[0] = 99
arr += 1
arr[:] = 0
arr.sort()
arr[::-1].sort()
arr.fill(-1)
np.random.default_rng(5).shuffle(arr)
np.put(arr, [0, 5], [9, 9])
arr.shape = (3, 4)
arr = arr * 2
arr[3] = np.nan
view[1] = 500
view *= 3
view = None
grid[0, 0] = 77
grid.sort(axis=0)
objs[0].append(2)
objs[1]["a"] = 9
objs[2] = "set"
recs["a"][1] = 5
recs[0] = (1, 2.0)
masked[0] = 9
masked[1] = np.ma.masked
masked.mask[0] = True
shared[0, 0] = 9
over.loc[1, "b"] = 4.0
nums.append(4)
nums.extend([5, 6])
nums.clear()
nums.sort()
nums.reverse()
nums[0] = "x"
nums[1:] = []
nums += [7]
nums *= 2
nums = sorted(nums)
del nums[0]
nums.pop()
deep[0].append(3)
deep[1]["a"].append(4)
deep[2][1].append(6)
deep[3].loc[0, "n"] = 5
deep.insert(0, "new")
deep.append(deep)
also.clear()
also = "rebound"
conf["z"] = 1
conf["b"]["c"].append(2)
del conf["a"]
conf.clear()
conf.update(a=2, y=3)
conf["f"].iloc[0] = 8.0
conf.setdefault("w", []).append(1)
conf["a"] = conf.pop("a")
conf = dict(conf)
ordered.move_to_end("a")
ordered["c"] = 3
ordered.popitem()
groups["b"].append(1)
groups["a"].append(2)
groups.default_factory = int
counts.update("xyz")
counts["a"] -= 5
tags.add("z")
tags.discard("x")
tags.clear()
tags ^= {"y", "n"}
tags = frozenset(tags)
line.append(4)
line.appendleft(0)
line.rotate(1)
line.clear()
raw += b"d"
raw[0] = 65
pair[1].append(3)
pair[2]["z"] = 1
pair += (5,)
box.inside.append(3)
box.put(5)
box.inside = None
box.extra = {"a": 1}
del box.log
box.__dict__.clear()
box = Box([])
twin.inside = [0]
Box.kind = "other"
Box.made.append(1)
Box.put = lambda self, value: None
del Box.kind
Box.fresh = 1
slim.a.append(2)
slim.b = 5
del slim.a
list.append(items, 3)
items.note = "m"
items[0] = None
step()
step.note = "x"
step.__defaults__ = ([],)
step = None
rng.random(5)
dice.random()
number += 1
text = text + "b"
flag = True
del number
number, text = text, number
fresh = [1]
fresh = df
from math import pi
def made(): return 1
number = df
gen.__next__()
stream.write("two")
db.execute("create table t (a)")
raise ValueError("after nothing")
df.loc[0, "n"] = 5; raise KeyError("after a change")
""".strip().splitlines()


def frozen(value: Any, seen: dict[int, tuple[int, Any]] | None = None) -> Any:
    """Return all there is to know of a value, with which of its parts are the same object as another."""
    seen = {} if seen is None else seen
    if isinstance(value, float) and value != value:
        return "nan"
    if value is None or isinstance(value, (int, float, complex, str, bytes, types.ModuleType, np.generic)):
        return type(value), repr(value)
    if id(value) in seen:
        return "again", seen[id(value)][0]
    seen[id(value)] = len(seen), value  # kept, so that no other object gets its id
    return type(value), *_parts(value, seen)


def _parts(value: Any, seen: dict[int, tuple[int, Any]]) -> list[Any]:
    def of(each: Any) -> Any:
        return frozen(each, seen)

    own = [of(dict(sorted(vars(value).items())))] if type(value).__name__ in ("Box", "Items") else []
    match value:
        case pd.DataFrame():
            columns = [of(value.iloc[:, n]) for n in range(value.shape[1])]
            return [of(value.columns), of(value.index), columns, of(value.attrs), [str(each) for each in value.dtypes]]
        case pd.Series():
            return [str(value.dtype), of(value.name), of(value.index), [of(each) for each in value.tolist()]]
        case pd.Index():
            return [str(value.dtype), list(value.names), [repr(each) for each in value.tolist()]]
        case np.ma.MaskedArray():
            return [value.dtype, value.shape, repr(value.mask), of(np.asarray(value.data))]
        case np.ndarray():
            data = list(map(of, value.ravel().tolist())) if value.dtype.hasobject else value.tobytes()
            return [str(value.dtype), value.shape, data]
        case dict():
            return [[(of(k), of(v)) for k, v in value.items()], getattr(value, "default_factory", None)]
        case list() | tuple() | bytearray():
            return [*[of(each) for each in list(value)], *own]
        case set() | frozenset():
            return sorted(map(repr, map(of, value)))
        case types.FunctionType():
            cells = [of(cell.cell_contents) for cell in value.__closure__ or ()]
            return [of(value.__defaults__), cells, of(value.__dict__)]
        case type():
            return [sorted((k, repr(of(v)) if isinstance(v, list) else id(v)) for k, v in vars(value).items())]
        case np.random.Generator():
            return [repr(value.bit_generator.state)]
        case random.Random():
            return [value.getstate()]
        case io.StringIO():
            return [value.getvalue()]
        case sqlite3.Connection():
            return value.execute("select name from sqlite_master").fetchall()
    if hasattr(value, "__length_hint__"):
        return [value.__length_hint__()]
    if hasattr(type(value), "__slots__"):
        return [of(getattr(value, name, "unset")) for name in ("a", "b")]
    return own or [repr(value), list(value) if hasattr(value, "rotate") else None]


def begun() -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(BEGIN + BEYOND, namespace)
    return namespace


def pictures(namespace: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Return each value of a namespace as it is, and all of them together."""
    own = own_names(namespace)
    return {name: frozen(value) for name, value in own.items()}, frozen([own[name] for name in sorted(own)])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_random_edits_are_taken_back_or_announced() -> None:
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
        if frozen([after[name] for name in sorted(before)]) == whole:  # also what was one object is one
            exact += 1
            continue
        announced += 1
        wrong = {name for name in before if frozen(after[name]) != picture[name]}
        assert wrong, lines
        assert wrong <= said, (lines, wrong)
        namespace = begun()
        picture, whole = pictures(namespace)
    print(f"{exact} of {EDITS} exactly, {announced} announced", file=sys.stderr)
    assert exact >= 0.95 * EDITS
    assert announced > 0
