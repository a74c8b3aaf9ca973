"""What a tool may return, and what a model then reads and sees."""

from __future__ import annotations

import base64
import datetime
import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import pytest
from IPython.display import Image as ShownImage
from kits.core import bench, context
from matplotlib.figure import Figure

from mentra_nb.content import Image
from mentra_nb.providers.scripted import text, tool_calls
from mentra_nb.tools.function import tool
from mentra_nb.tools.pictures import MAX_IMAGE_BYTES, MAX_SIDE
from mentra_nb.tools.results import MAX_ALL_BYTES, MAX_IMAGES, as_content, as_output
from mentra_nb.tools.tables import MAX_COLUMNS, MAX_ROWS
from mentra_nb.tools.tool import ToolOutput

pytestmark = pytest.mark.anyio


class Colour(Enum):
    RED = "red"


@dataclass
class Measured:
    name: str
    at: datetime.date
    values: Any


class Odd:
    def __str__(self) -> str:
        return "odd"


# ---- text and JSON --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "content"),
    [
        (Measured("a", datetime.date(2026, 3, 1), (1, 2)), {"name": "a", "at": "2026-03-01", "values": [1, 2]}),
        ([Measured("a", datetime.date(2026, 3, 1), None)], [{"name": "a", "at": "2026-03-01", "values": None}]),
        (Colour.RED, "red"),
        ({"colour": Colour.RED}, {"colour": "red"}),
        (datetime.date(2026, 3, 1), "2026-03-01"),
        (Decimal("1.50"), "1.50"),
        (Path("a/b"), "a/b"),
        ([1.0, float("nan"), float("inf")], [1.0, "NaN", "Infinity"]),
        (np.float64(2.5), 2.5),
        (np.int64(3), 3),
        ({"total": np.int64(3), "who": Odd()}, {"total": 3, "who": "odd"}),
        (b"plain text", "plain text"),
        (b"\xff\xfe\x00", "[3 bytes of an unknown kind]"),
        ([b"plain", b"\xff"], ["plain", "[1 byte of an unknown kind]"]),
        ((1, 2), (1, 2)),
    ],
)
def test_a_value_becomes_text_or_json(value: Any, content: Any) -> None:
    assert as_content(value) == content
    json.dumps(as_content(value), allow_nan=False)


def test_what_yields_values_is_not_read_to_its_end() -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 1

    assert "generator object" in as_content(endless())


def test_a_list_that_contains_itself_becomes_its_text() -> None:
    circle: list[Any] = [1]
    circle.append(circle)
    assert as_content(circle) == "[1, [...]]"


# ---- tables ---------------------------------------------------------------------------------------------------


TEXT = pd.Series(["a"]).dtype
"""`str` from pandas 3 on, before it `object`."""


def frame(rows: int, columns: int = 2) -> pd.DataFrame:
    numbers = {f"c{at}": np.arange(rows) for at in range(columns - 1)}
    return pd.DataFrame({**numbers, "text": [f"row {at}" for at in range(rows)]})


def test_a_long_table_is_shown_by_its_size_its_types_its_head_and_its_tail() -> None:
    about, header, *lines = as_content(frame(1_000_000)).splitlines()
    assert about == f"DataFrame, 1000000 rows × 2 columns: c0 int64, text {TEXT}"
    assert header.split() == ["c0", "text"]
    assert len(lines) == MAX_ROWS // 2 + 1
    assert lines[0].split() == ["0", "0", "row", "0"]
    assert lines[MAX_ROWS // 4].split() == ["...", "...", "..."]
    assert lines[-1].split() == ["999999", "999999", "row", "999999"]


def test_a_short_table_is_shown_whole_and_a_wide_one_by_its_first_and_last_columns() -> None:
    assert len(as_content(frame(MAX_ROWS)).splitlines()) == MAX_ROWS + 2
    assert as_content(frame(1)[:0]) == f"DataFrame, 0 rows × 2 columns: c0 int64, text {TEXT}"
    about, header, _ = as_content(frame(1, 200)).splitlines()
    assert about.endswith(f" c{MAX_COLUMNS - 1} int64, and {200 - MAX_COLUMNS} more columns")
    assert header.split()[0] == "c0"
    assert header.split()[-1] == "text"


def test_the_view_of_any_table_is_short() -> None:
    wide = pd.DataFrame({"x" * 10_000: ["y" * 100_000] * 1_000, "z": "a\nb"})
    assert len(as_content(wide)) < 20_000


def test_a_series_is_shown_by_its_name_its_type_its_head_and_its_tail() -> None:
    about, *lines = as_content(pd.Series(np.arange(100.0), name="speed")).splitlines()
    assert about == "Series 'speed', 100 values of float64"
    assert (lines[0].split(), lines[-1].split()) == (["0", "0.0"], ["99", "99.0"])
    assert as_content(pd.Series([], dtype="int64")) == "Series, 0 values of int64"


def test_an_array_is_shown_by_its_type_its_shape_and_its_edges() -> None:
    assert as_content(np.array([[1, 2], [3, 4]])) == "array of int64, shape (2, 2)\n[[1 2]\n [3 4]]"
    large = as_content(np.arange(1_000_000))
    assert large == (
        "array of int64, shape (1000000,)\n[     0      1      2      3      4 ... 999995 999996 999997 999998 999999]"
    )


def test_tables_inside_a_result_are_shown_in_their_places() -> None:
    content = as_content({"n": 1, "table": frame(1), "parts": [np.array([1])]})
    assert content["n"] == 1
    assert content["table"].startswith("DataFrame, 1 row × 2 columns")
    assert content["parts"] == ["array of int64, shape (1,)\n[1]"]
    nested = as_content(Measured("a", datetime.date(2026, 3, 1), frame(1)))
    assert nested["values"].startswith("DataFrame, 1 row")


# ---- pictures -------------------------------------------------------------------------------------------------


def file_of(kind: str, size: tuple[int, int] = (4, 3), mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    PIL.Image.new(mode, size).save(file, format=kind)
    return file.getvalue()


def opened(image: Image) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(base64.b64decode(image.data or "")))


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "webp"])
@pytest.mark.parametrize("holder", [bytes, bytearray, memoryview])
def test_the_bytes_of_a_picture_file_are_a_picture(kind: str, holder: Callable[[bytes], Any]) -> None:
    raw = file_of(kind)
    output = as_output(holder(raw))
    assert output.images == (Image.from_bytes(f"image/{kind}", raw),)
    assert output.content == f"[picture 1: image/{kind}, {len(raw)} bytes]"


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I", "F", "YCbCr"])
def test_a_picture_of_pillow_is_one_in_any_mode_and_made_to_fit(mode: str) -> None:
    [image] = as_output(PIL.Image.new(mode, (4000, 100))).images
    assert opened(image).size == (MAX_SIDE, round(100 * MAX_SIDE / 4000))


def figure(width: float = 4.0) -> Figure:
    made = Figure(figsize=(width, 3))
    made.subplots().plot([1, 2])
    return made


def test_a_figure_is_drawn_and_so_is_what_belongs_to_one() -> None:
    made = figure()
    pictures = [as_output(each).images for each in (made, made.axes[0], made.axes[0].lines[0])]
    assert opened(pictures[0][0]).size == (400, 300)
    assert pictures[0] == pictures[1] == pictures[2]
    assert max(opened(as_output(figure(100)).images[0]).size) <= MAX_SIDE
    several = Figure().subplots(2, 2)
    assert len(as_output(several).images) == 1
    assert len(as_output(made.axes[0].plot([1, 2], [3, 4], [5, 6], [7, 8])).images) == 1


def test_what_shows_itself_as_a_picture_in_a_notebook_is_one() -> None:
    raw = file_of("png")
    assert as_output(ShownImage(data=raw)).images == (Image.from_bytes("image/png", raw),)

    class Broken:
        def _repr_png_(self) -> bytes:
            raise RuntimeError("cannot draw")

        def __str__(self) -> str:
            return "words"

    assert as_output(Broken()) == ToolOutput("words")


def test_pictures_inside_a_result_are_named_in_their_places() -> None:
    first, second = file_of("png"), file_of("gif")
    output = as_output({"plot": figure(), "files": [first, second], "again": first})
    assert [image.media_type for image in output.images] == ["image/png", "image/gif", "image/png"]
    assert output.content["files"][0] == f"[picture 1: image/png, {len(first)} bytes]"
    assert output.content["files"][1] == f"[picture 2: image/gif, {len(second)} bytes]"
    assert output.content["plot"].startswith("[picture 3: image/png")
    assert output.content["again"] == "[picture 1]"


def test_an_output_may_hold_pictures_of_any_kind() -> None:
    output = as_output(ToolOutput("see", images=(figure(), file_of("png"))))  # type: ignore[arg-type]
    assert (output.content, len(output.images)) == ("see", 2)
    with pytest.raises(TypeError, match="str is not a picture"):
        as_output(ToolOutput("see", images=("words",)))  # type: ignore[arg-type]


def test_a_picture_over_the_limits_is_left_out_with_a_note() -> None:
    large = file_of("png") + bytes(MAX_IMAGE_BYTES)
    assert as_output(large) == ToolOutput(
        f"[a picture of {len(large)} bytes is left out: the limit is {MAX_IMAGE_BYTES}]"
    )
    heavy = [file_of("gif") + bytes([at]) * (MAX_ALL_BYTES // 4) for at in range(5)]
    assert [part.split(":")[0] for part in as_output(heavy).content] == [
        *(f"[picture {number}" for number in range(1, 4)),
        *["[a picture is left out"] * 2,
    ]
    many = as_output([file_of("png", (at + 1, 1)) for at in range(MAX_IMAGES + 2)])
    assert len(many.images) == MAX_IMAGES
    assert many.content[-1] == f"[a picture is left out: a result has at most {MAX_IMAGES}]"


async def test_a_function_that_returns_a_figure_shows_it_to_the_model() -> None:
    drawn_on: list[int] = []

    @tool(reads_only=True)
    def draw() -> Any:
        drawn_on.append(threading.get_ident())
        return figure()

    async with bench(tool_calls([("draw", {})]), text("ok"), tools=[draw]) as table:
        agent = await table.agent()
        await agent.run("go")
        [result] = agent.history()[2].tool_results()
    assert [image.media_type for image in result.images] == ["image/png"]
    assert result.content.startswith("[picture 1: image/png, ")
    assert drawn_on != [threading.get_ident()]


async def test_a_function_that_returns_a_table_shows_a_short_view_of_it(tmp_path: Path) -> None:
    output = await tool(lambda: frame(10_000), name="load").execute(context(tmp_path), {})
    assert output.content.startswith("DataFrame, 10000 rows × 2 columns")
