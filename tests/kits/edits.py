"""A namespace of many kinds of values, and lines of code that edit them."""

from __future__ import annotations

BEGIN = """
import collections, dataclasses, functools, io, math, os, random, sqlite3, sys, types, warnings
import matplotlib as mpl
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
@dataclasses.dataclass
class Point:
    x: int = 0
    tags: list = dataclasses.field(default_factory=list)
@dataclasses.dataclass(slots=True)
class Lean:
    a: int = 0
    b: list = dataclasses.field(default_factory=list)
class Base:
    limit = [1]
    @classmethod
    def raised(cls):
        cls.limit = cls.limit + [2]
class Derived(Base):
    limit2 = {"a": 1}
point, lean, derived = Point(1, ["p"]), Lean(1, [2]), Derived()
points = [point, Point(2)]
cats = pd.Series(pd.Categorical(["a", "b", "a", None], categories=["a", "b", "c"]))
cat = cats.array
stamps = pd.Series(pd.date_range("2026-01-01", periods=3, tz="UTC"))
ints = pd.Series([1, None, 3], dtype="Int64")
texts = pd.Series(["x", None, "z"], dtype="string")
part = df["x"]
top = df.iloc[:2]
nest = {"rows": [{"ids": {1, 2}, "at": (1, [2, {"k": collections.deque([1])}])}], "frames": {"one": df, "two": multi}}
chained = collections.ChainMap({"a": 1}, {"b": [2]})
bag = types.SimpleNamespace(a=1, b=[2])
added = functools.partial(max, [1], key=len)
seen = {frozenset({1}): [1], "s": {1, 2}}
ring = collections.deque([[1], {2}])
tree = collections.defaultdict(lambda: collections.defaultdict(list))
tree["a"]["b"].append(1)
tool = types.ModuleType("tool")
tool.level, tool.log = 1, []
rng = np.random.default_rng(1)
dice = random.Random(1)
number, text, flag = 1, "a", None
"""

BEYOND = """
db = sqlite3.connect(":memory:")
stream = io.StringIO("one")
gen = iter([1, 2, 3])
def made_by():
    yield from [1, 2, 3]
lazy = made_by()
held = [stream, {"deep": gen}]
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
df.attrs = {"source": ["other"]}
df.attrs.clear()
df.attrs["source"] = None
multi.attrs["unit"] = {"x": "m"}
ser.attrs["note"] = [1]
df.rename(index={0: 9}, inplace=True)
df.columns = pd.Index(list("uvwxyz"), name="letters")
df.columns.names = ["late"]
multi.columns = ["a", "b"]
multi.index = multi.index.set_names(["s", "t"])
multi.index.set_names(["s", "t"], inplace=True)
df.rename_axis("r", inplace=True)
df.rename_axis(columns="k", inplace=True)
rows.name = "kept"
df.sort_values(["c", "n"], inplace=True)
df.sort_index(ascending=False, inplace=True)
df.sort_index(axis=1, inplace=True)
multi.sort_values("x", inplace=True)
ser.sort_index(ascending=False, inplace=True)
del df["c"]; del df["n"]
del multi["n"]
del ser["i"]
df["c"] = df["c"].cat.rename_categories({"u": "uu"})
df["c"] = df["c"].cat.as_ordered()
df.loc[0, "c"] = "v"
cats.iloc[0] = "c"
cats = cats.cat.remove_unused_categories()
cats[3] = "b"
cat[1] = "a"
stamps.iloc[0] = pd.Timestamp("2030-01-01", tz="UTC")
stamps += pd.Timedelta(days=1)
ints.iloc[1] = 7
texts.iloc[0] = "y"
part.iloc[0] = 6.0
part.name = "other"
part.attrs["p"] = 1
part.fillna(0.0, inplace=True)
top.loc[0, "n"] = 4
top.insert(0, "k", 1)
df["x"].values.setflags(write=True); df["x"].values[0] = 9
nest["rows"][0]["ids"].add(3)
nest["rows"][0]["at"][1][1]["k"].append(2)
nest["rows"].append(nest)
nest["frames"]["one"].loc[0, "x"] = 3.5
nest["frames"].pop("two")["x"] = 0
nest["frames"]["one"] = nest["frames"]["one"].assign(y=1)
del nest["rows"][0]["at"]
chained["c"] = 3
chained.maps[1]["b"].append(4)
chained.maps.append({})
bag.a = 2
bag.b.append(3)
bag.c = bag
added.args[0].append(2)
added.keywords["default"] = 0
added.note = "n"
seen[frozenset({1})].append(2)
seen["s"] -= {1}
seen[frozenset({2})] = 0
tags.update({"q", ("t", 1)})
tags &= {"x"}
tags.remove("y"); tags.add("y")
ring[0].append(2)
ring[1].add(3)
ring.extendleft([7, 8])
ring.popleft()
ring = collections.deque(ring, maxlen=1)
line.reverse()
line.insert(0, 9)
del line[1]
tree["a"]["c"].append(2)
tree["z"]
tree["a"].default_factory = None
groups["new"]
groups |= {"a": [9]}
point.x = 5
point.tags.append("q")
point.extra = [1]
del point.x
points[1].tags.append(1)
points.sort(key=lambda each: -each.x)
points[0] = dataclasses.replace(point, x=9)
lean.a = 9
lean.b.append(3)
del lean.b
Point.x = 7
Point.shown = property(lambda self: 1)
Point.__eq__ = lambda self, other: False
derived.limit.append(2)
derived.limit = []
Derived.raised()
Base.raised()
Base.limit.clear()
Derived.limit2["b"] = [2]
Derived.limit = [5]
Derived.__doc__ = "d"
Derived.__init__ = lambda self: None
derived.__class__ = Base
setattr(Box, "made", (1,))
tool.level = 2
tool.log.append(1)
tool.fresh = {}
del tool.level
math.tau = 6
math.note = 1
np.note = [1]
del math.e
os.environ["MENTRA_EDIT"] = "1"
os.environ.update(MENTRA_A="1", HOME="/nowhere")
os.environ.pop("PATH", None)
os.chdir("/")
sys.path.append("/nowhere")
sys.path[:] = sys.path[::-1]
random.seed(3)
random.shuffle(nums)
np.random.seed(3)
np.random.shuffle(arr)
warnings.simplefilter("ignore")
warnings.filterwarnings("error", category=ResourceWarning)
pd.set_option("display.max_rows", 5)
pd.options.display.precision = 2
mpl.rcParams["lines.linewidth"] = 7
mpl.rc("font", size=30)
mpl.rcParams.update({"axes.grid": True, "lines.color": "red"})
recs["b"] += 1.5
arr.flags.writeable = False
arr.dtype = "i8"
masked.mask = [1, 1, 1]
masked.fill_value = 7
masked += 1
objs[:] = None
step.__kwdefaults__ = {"k": [1]}
step.__code__ = (lambda seen=[]: 5).__code__
step.__closure__[0].cell_contents = 50
step.__doc__ = "d"
step.__name__ = "other"
rng.bit_generator.state = np.random.default_rng(9).bit_generator.state
rng.shuffle(arr)
items.__class__ = Box
next(lazy)
held[0].write("x")
held.append(1)
gen.__next__()
stream.write("two")
db.execute("create table t (a)")
raise ValueError("after nothing")
df.loc[0, "n"] = 5; raise KeyError("after a change")
""".strip().splitlines()
