"""The types that a tool's parameters may have: what a model is shown of them, and what the function is called with."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, Required, TypedDict, TypeVar
from uuid import UUID

import pytest
from kits.core import context
from pydantic import BaseModel, Field

from mentra_nb.tools.function import FunctionTool, tool
from mentra_nb.tools.schema import ToolError

pytestmark = pytest.mark.anyio


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


@dataclass
class Point:
    """A place.

    Attributes:
        y: How far up.
    """

    x: Annotated[int, "How far right."]
    y: int = 0


@dataclass
class Chain:
    name: str
    next: Chain | None = None


class Tree(BaseModel):
    value: Annotated[int, Field(ge=0, description="What it holds.")]
    children: list[Tree] = []


class Order(TypedDict):
    """What is bought."""

    item: Required[Annotated[str, "What."]]
    place: Point
    count: NotRequired[Annotated[int, "How many."]]


class Loose(TypedDict, total=False):
    colour: Colour
    inner: list[Order]


class Pair(NamedTuple):
    left: int
    right: str = "r"


T = TypeVar("T")


class Box(BaseModel, Generic[T]):
    content: T


Order_ = {"item": "tea", "place": {"x": 1}}


def taking(hint: Any, default: Any = ...) -> tuple[FunctionTool, list[Any]]:
    """Return a tool with one parameter of that type, and the list of what its function is called with."""
    seen: list[Any] = []

    def required(value: Any) -> None:
        seen.append(value)

    def optional(value: Any = default) -> None:
        seen.append(value)

    function: Callable[..., Any] = required if default is ... else optional
    function.__annotations__["value"] = hint
    return tool(name="take")(function), seen


@pytest.mark.parametrize(
    ("hint", "sent", "received"),
    [
        (Colour, "red", Colour.RED),
        (Level, 2, Level.HIGH),
        (Literal["a", 2], 2, 2),
        (Literal[Colour.RED, "none"], "red", Colour.RED),
        (list[Literal[Level.LOW]], [1], [Level.LOW]),
        (Point, {"x": 1}, Point(1, 0)),
        (dict[str, Point], {"a": {"x": 1, "y": 2}}, {"a": Point(1, 2)}),
        (Chain, {"name": "a", "next": {"name": "b"}}, Chain("a", Chain("b"))),
        (Tree, {"value": 1, "children": [{"value": 2}]}, Tree(value=1, children=[Tree(value=2)])),
        (Point | Tree, {"value": 1}, Tree(value=1)),
        (Box[Point], {"content": {"x": 3}}, Box[Point](content=Point(3))),
        (Order, Order_, {"item": "tea", "place": Point(1)}),
        (Order | None, Order_ | {"count": 2}, {"item": "tea", "place": Point(1), "count": 2}),
        (Annotated[list[Order], "all"], [Order_], [{"item": "tea", "place": Point(1)}]),
        (
            Loose,
            {"colour": "blue", "inner": [Order_]},
            {"colour": Colour.BLUE, "inner": [Order_ | {"place": Point(1)}]},
        ),
        (Pair, [1, "z"], Pair(1, "z")),
        (tuple[int, str], [1, "a"], (1, "a")),
        (tuple[Point, ...], [{"x": 1}, {"x": 2}], (Point(1), Point(2))),
        (set[int], [1, 1], {1}),
        (int | None, None, None),
        (Path, "a/b", Path("a/b")),
        (datetime.date, "2026-03-01", datetime.date(2026, 3, 1)),
        (datetime.timedelta, "PT3S", datetime.timedelta(seconds=3)),
        (Decimal, "1.50", Decimal("1.50")),
        (UUID, "12345678-1234-5678-1234-567812345678", UUID("12345678-1234-5678-1234-567812345678")),
    ],
    ids=str,
)
async def test_a_function_is_called_with_values_of_its_types(
    hint: Any, sent: Any, received: Any, tmp_path: Path
) -> None:
    made, seen = taking(hint)
    await made.execute(context(tmp_path), made.validate({"value": sent}))
    assert seen == [received]
    assert type(seen[0]) is type(received)


@pytest.mark.parametrize(
    ("hint", "sent"),
    [
        (Colour, "green"),
        (Literal[Colour.RED], "blue"),
        (Order, {"place": {"x": 1}}),
        (Order, Order_ | {"more": 1}),
        (Tree, {"value": 1, "children": [{"value": -1}]}),
        (Chain, {"name": "a", "next": {"name": 3}}),
        (tuple[int, str], [1]),
    ],
    ids=str,
)
def test_a_value_of_another_type_is_refused(hint: Any, sent: Any) -> None:
    with pytest.raises(ToolError, match=r"invalid arguments: value"):
        taking(hint)[0].validate({"value": sent})


def shown(hint: Any, name: str) -> dict[str, Any]:
    """Return the properties that a model is shown of a class."""
    properties: dict[str, Any] = taking(hint)[0].spec.input_schema["$defs"][name]["properties"]
    return properties


@pytest.mark.parametrize(
    ("hint", "name", "descriptions"),
    [
        (Point, "Point", {"x": "How far right.", "y": "How far up."}),
        (Tree, "Tree", {"value": "What it holds.", "children": None}),
        (Order, "Order", {"item": "What.", "place": None, "count": "How many."}),
        (list[Loose], "Order", {"item": "What.", "place": None, "count": "How many."}),
        (Order, "Point", {"x": "How far right.", "y": "How far up."}),
    ],
)
def test_what_a_class_says_about_its_fields_reaches_the_model(
    hint: Any, name: str, descriptions: dict[str, str | None]
) -> None:
    assert {field: about.get("description") for field, about in shown(hint, name).items()} == descriptions


def test_a_recursive_type_refers_to_itself() -> None:
    schema = taking(Tree)[0].spec.input_schema
    assert schema["properties"]["value"] == {"$ref": "#/$defs/Tree"}
    assert schema["$defs"]["Tree"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}


def test_the_docstring_of_a_class_and_its_required_fields_are_shown() -> None:
    order = taking(Order)[0].spec.input_schema["$defs"]["Order"]
    assert (order["description"], order["required"]) == ("What is bought.", ["item", "place"])


async def test_a_default_may_be_a_field_with_a_description_and_limits(tmp_path: Path) -> None:
    def take(
        many: int = Field(3, ge=1, description="How many."),
        which: list[str] = Field(default_factory=lambda: ["all"], examples=[["a"]]),  # noqa: B008  # as in pydantic
        where: str = Field(description="Where."),
    ) -> str:
        """Take some.

        Args:
            which: The ones.
        """
        return f"{many} {which} {where}"

    schema = tool(take).spec.input_schema
    assert schema["properties"] == {
        "many": {"type": "integer", "default": 3, "minimum": 1, "description": "How many."},
        "which": {"type": "array", "items": {"type": "string"}, "description": "The ones.", "examples": [["a"]]},
        "where": {"type": "string", "description": "Where."},
    }
    assert schema["required"] == ["where"]
    output = await tool(take).execute(context(tmp_path), tool(take).validate({"where": "here"}))
    assert output.content == "3 ['all'] here"
    with pytest.raises(ToolError, match="greater than or equal to 1"):
        tool(take).validate({"where": "here", "many": 0})


@dataclass
class Settings:
    colours: list[Colour] = field(default_factory=list)
    point: Point = field(default_factory=lambda: Point(1))


@pytest.mark.parametrize("default", [Colour.RED, Point(1), None, (1, "a"), Settings()])
async def test_a_default_is_handed_on_as_it_is(default: Any, tmp_path: Path) -> None:
    made, seen = taking(Any, default)
    await made.execute(context(tmp_path), made.validate({}))
    assert seen == [default]
