"""Tools: how a function becomes one, and what the built-in ones do to files and commands."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pytest
from kits.core import context
from pydantic import BaseModel, Field

from mentra_nb.authorization import Subject, ToolCapability
from mentra_nb.content import MAX_DEPTH
from mentra_nb.errors import InvalidTool
from mentra_nb.permission.policy import PolicyViolation, RuntimePolicy
from mentra_nb.tools.builtin.files.single import ReadTool, WriteTool
from mentra_nb.tools.builtin.shell import ShellTool
from mentra_nb.tools.function import FunctionTool, as_tool, tool
from mentra_nb.tools.results import as_content
from mentra_nb.tools.schema import ToolError
from mentra_nb.tools.tool import MainThread, Tool, ToolContext, ToolOutput

pytestmark = pytest.mark.anyio


async def call(made: Tool, folder: Path, policy: RuntimePolicy | None = None, **arguments: Any) -> Any:
    """Validate and run, as the scheduler does."""
    ctx = context(folder, policy)
    return (await made.execute(ctx, made.validate(arguments))).content


# ---- a function as a tool -------------------------------------------------------------------------------------


def weather(city: str, days: int = 1, unit: Literal["C", "F"] = "C") -> str:
    """The weather somewhere.

    Args:
        city: Where.
        days: How far ahead.
    """
    return f"{city} {days} {unit}"


def test_a_model_is_shown_name_docstring_and_typed_parameters() -> None:
    spec = tool(weather).spec
    assert (spec.name, spec.description) == ("weather", "The weather somewhere.")
    assert spec.input_schema == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Where."},
            "days": {"type": "integer", "default": 1, "description": "How far ahead."},
            "unit": {"enum": ["C", "F"], "type": "string", "default": "C"},
        },
        "required": ["city"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(("default", "example"), [("", "x: str"), ("=3", "x: int"), ("=None", "x: str")])
def test_a_parameter_without_a_hint_is_refused_in_one_sentence(default: str, example: str) -> None:
    scope: dict[str, Any] = {}
    exec(f"def untyped(x{default}): return x", scope)
    with pytest.raises(InvalidTool) as failure:
        tool(scope["untyped"])
    assert str(failure.value) == (
        f"untyped() has no type hint for 'x': a model must know what to send, for example {example}"
    )


class Frame:
    """Stands for a type of another library."""


@pytest.mark.parametrize("hint", [Frame, Annotated[Frame, "the data"], Callable[[], int]])
def test_a_type_that_is_not_json_is_refused_in_one_sentence(hint: Any) -> None:
    def plot(ctx: ToolContext, title: str, data: Any) -> str:
        return title

    plot.__annotations__["data"] = hint
    with pytest.raises(InvalidTool, match=r"a model cannot send 'data: \w+'; take a name, a path or plain") as failure:
        tool(plot)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("extra", [Field(ge=1, description="One to five."), "One to five."])
@pytest.mark.parametrize("is_optional", [False, True])
def test_the_description_in_a_hint_reaches_the_model(extra: Any, is_optional: bool) -> None:
    def take(n: int) -> int:
        """Take some.

        Args:
            n: Something else.
        """
        return n

    take.__annotations__["n"] = Annotated[int, extra] | None if is_optional else Annotated[int, extra]
    assert tool(take).spec.input_schema["properties"]["n"]["description"] == "One to five."


class Point(NamedTuple):
    x: int
    name: str = "origin"


@pytest.mark.parametrize(
    ("hint", "items"),
    [
        (tuple[int, str], {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        (tuple[float, float], {"type": "number"}),
        (tuple[int, ...], {"type": "integer"}),
        (tuple[()], {}),
        (Point, {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        (Annotated[tuple[int, int], "a pair"], {"type": "integer"}),
    ],
)
def test_an_array_says_what_its_items_are(hint: Any, items: dict[str, Any]) -> None:
    def take(p: Any) -> None: ...

    take.__annotations__["p"] = hint
    whole = tool(take).spec.input_schema
    schema = next(iter(whole.get("$defs", {}).values()), whole["properties"]["p"])
    assert schema["items"] == items
    if hint == tuple[int, str]:
        assert (schema["minItems"], schema["maxItems"], len(schema["prefixItems"])) == (2, 2, 2)


@dataclass
class Measured:
    value: float = float("nan")


@pytest.mark.parametrize("default", [float("nan"), float("inf"), [float("nan")], object(), Measured()])
def test_a_default_that_is_not_json_is_left_out_without_a_warning(
    default: Any, recwarn: pytest.WarningsRecorder
) -> None:
    def take(x: Any = default) -> None: ...

    assert "default" not in tool(take).spec.input_schema["properties"]["x"]
    json.dumps(tool(take).spec.input_schema, allow_nan=False)
    assert not recwarn.list


def test_a_choice_that_is_not_json_is_refused_in_one_sentence() -> None:
    class Level(Enum):
        NONE = float("nan")

    def take(level: Any) -> None: ...

    take.__annotations__["level"] = Level
    with pytest.raises(InvalidTool, match="no JSON Schema can describe"):
        tool(take)


def test_constraints_in_a_hint_reach_the_model() -> None:
    def take(n: Annotated[int, Field(ge=1, le=9)]) -> int:
        return n

    assert tool(take).spec.input_schema["properties"]["n"] == {"type": "integer", "minimum": 1, "maximum": 9}


def test_a_tool_asks_and_changes_things_unless_it_says_otherwise() -> None:
    plain, quiet = tool(weather), tool(reads_only=True, asks=False)(weather)
    assert (plain.spec.asks, plain.spec.reads_only, plain.spec.effect) == (True, False, "once")
    assert plain.spec.execution_category == "ExclusiveLocalMutation"
    assert (quiet.spec.asks, quiet.spec.reads_only, quiet.spec.effect) == (False, True, "none")
    assert quiet.spec.execution_category == "ReadOnlyParallel"


def test_a_function_can_have_a_time_out_and_be_left_out_of_the_prompt() -> None:
    slow, plain = tool(timeout=2.5, deferred=True)(weather).spec, tool(weather).spec
    assert (slow.execution_timeout, slow.deferred, slow.loading_policy) == (2.5, True, "Deferred")
    assert (plain.execution_timeout, plain.deferred, plain.loading_policy) == (None, False, "Immediate")


async def wait() -> None: ...


@pytest.mark.parametrize(
    ("function", "options", "words"),
    [
        (weather, {"timeout": 0}, "time-out of weather.* more than 0 seconds"),
        (weather, {"timeout": float("nan")}, "time-out of weather.* more than 0 seconds"),
        (wait, {"main_thread": True}, "wait.* is asynchronous"),
    ],
)
def test_an_option_that_cannot_hold_is_an_invalid_tool(
    function: Callable[..., Any], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidTool, match=words):
        tool(**options)(function)


async def test_arguments_are_parsed_into_what_the_hints_say(tmp_path: Path) -> None:
    class Point(BaseModel):
        x: int

    def where(point: Point, path: Path = Path("here")) -> list[str]:
        return [type(point).__name__, type(path).__name__, str(point.x)]

    # a class of this function is not found by name
    where.__annotations__ = {"point": Point, "path": Path, "return": list[str]}
    assert await call(tool(where), tmp_path, point={"x": 3}) == ["Point", "PosixPath", "3"]


@pytest.mark.parametrize("name", ["schema", "json", "copy", "model_config", "model_dump", "dict", "_private", "self_"])
async def test_a_parameter_may_have_any_name(tmp_path: Path, name: str) -> None:
    scope: dict[str, Any] = {}
    exec(f"def echo({name}: str) -> str: return {name}", scope)
    assert await call(tool(scope["echo"]), tmp_path, **{name: "value"}) == "value"


async def test_the_context_is_handed_in_and_not_shown_to_the_model(tmp_path: Path) -> None:
    def who(ctx: ToolContext, greeting: str = "hi") -> str:
        return f"{greeting} {ctx.agent_name}"

    made = tool(who)
    assert set(made.spec.input_schema["properties"]) == {"greeting"}
    assert await call(made, tmp_path) == "hi tester"


async def test_tools_can_read_registered_app_context(tmp_path: Path) -> None:
    class Shop:
        name = "corner"

    ctx = context(tmp_path, shop=Shop())
    assert ctx.app_context(Shop).name == "corner"
    with pytest.raises(ToolError, match="no application context of type Path"):
        ctx.app_context(Path)


async def test_a_plain_function_runs_on_a_thread_of_its_own(tmp_path: Path) -> None:
    assert await call(tool(lambda: threading.get_ident(), name="ident"), tmp_path) != threading.get_ident()


async def test_a_function_that_asks_for_the_thread_of_the_cell_runs_there(tmp_path: Path) -> None:
    @tool(main_thread=True, reads_only=True)
    def ident() -> int:
        return threading.get_ident()

    with ThreadPoolExecutor(1) as cell:
        here = MainThread(lambda work: asyncio.wrap_future(cell.submit(work)), lambda: None)
        result = await ident.execute(context(tmp_path, here=here), {})
        assert result.content == cell.submit(threading.get_ident).result()
    assert not ident.spec.parallel
    with pytest.raises(ToolError, match="no MainThread is available to this tool"):
        await call(ident, tmp_path)


async def test_a_coroutine_function_runs_on_the_loop(tmp_path: Path) -> None:
    async def loop() -> bool:
        return asyncio.get_running_loop() is here

    here = asyncio.get_running_loop()
    assert await call(tool(loop), tmp_path) is True


async def test_an_object_with_an_asynchronous_call_is_awaited(tmp_path: Path) -> None:
    class Adder:
        async def __call__(self, a: int) -> int:
            return a + 1

    assert await call(tool(Adder().__call__, name="add"), tmp_path, a=1) == 2
    lazy: Callable[[], Any] = lambda: Adder()(a=4)  # noqa: E731
    assert await call(tool(lazy, name="lazy"), tmp_path) == 5


class Point(BaseModel):
    x: int = 7
    tags: list[str] = []


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"items": "[1,2]"}, {"items": [1, 2]}),
        ({"items": [1], "point": '{"x": 3}'}, {"items": [1], "point": {"x": 3}}),
        ({"items": [1], "point": {"x": None}}, {"items": [1], "point": {}}),
        ({"items": [1], "point": {"tags": '["a"]'}}, {"items": [1], "point": {"tags": ["a"]}}),
        ({"items": [1], "days": None}, {"items": [1]}),
        ({"items": "[1]", "days": None}, {"items": [1]}),
        ({"items": [1], "words": "[1]"}, {"items": [1], "words": "[1]"}),
        ({"items": [1], "either": "[1]"}, {"items": [1], "either": [1]}),
    ],
)
async def test_json_in_json_and_null_for_a_default_are_understood(
    tmp_path: Path, given: dict[str, Any], read: dict[str, Any]
) -> None:
    def take(
        items: list[int], point: Point | None = None, days: int = 2, words: str = "", either: list[int] | int = 0
    ) -> str:
        return f"{items} {point} {days}"

    before = copy.deepcopy(given)
    made = tool(take)
    assert made.validate(given) == read
    assert given == before
    await call(made, tmp_path, **given)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"items": "[1,"}, "invalid arguments: items: Input should be a valid list"),
        ({"items": '"[1]"'}, "invalid arguments: items: Input should be a valid list"),
        ({"items": None}, "invalid arguments: items: Input should be a valid list"),
        ({"items": "[" * 100_000}, "invalid arguments: items: Input should be a valid list"),
        ({"items": [], "x" * 100_000: 1}, "invalid arguments: " + "x" * 500 + ": Extra inputs are not permitted"),
    ],
)
def test_what_still_does_not_fit_is_said_as_it_was_given(given: dict[str, Any], sentence: str) -> None:
    def take(items: list[int]) -> None: ...

    with pytest.raises(ToolError) as failure:
        tool(take).validate(given)
    assert str(failure.value) == sentence


def test_json_in_json_that_is_nested_too_deep_does_not_fit() -> None:
    def take(items: list[Any]) -> None: ...

    with pytest.raises(ToolError, match="invalid arguments: items"):
        tool(take).validate({"items": "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)})
    tool(take).validate({"items": "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)})


def test_a_result_nested_too_deep_becomes_its_text() -> None:
    fits: Any = 0
    for _ in range(MAX_DEPTH):
        fits = [fits]
    assert as_content(fits) is fits
    assert as_content([fits]) == json.dumps([fits])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "invalid arguments: city: Field required"),
        ({"city": 3}, "invalid arguments: city: Input should be a valid string"),
        ({"city": "x", "unit": "K"}, "invalid arguments: unit: Input should be 'C' or 'F'"),
        ({"city": "x", "extra": 1}, "invalid arguments: extra: Extra inputs are not permitted"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_in_one_sentence(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ToolError) as refusal:
        tool(weather).validate(arguments)
    assert str(refusal.value) == sentence


def variadic(*args: str) -> None: ...
def keyworded(**kwargs: str) -> None: ...
def positional(x: str, /) -> None: ...
def unresolved(x: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821, UP037
def indescribable(x: threading.Thread) -> None: ...
def callback(x: Callable[[int], int]) -> None: ...


@pytest.mark.parametrize(
    "function", [variadic, keyworded, positional, unresolved, indescribable, callback, lambda: 1, threading.get_ident]
)
def test_a_function_that_cannot_be_offered_is_an_invalid_tool(function: Callable[..., Any]) -> None:
    with pytest.raises(InvalidTool):
        tool(function)


def test_what_is_neither_a_tool_nor_a_function_is_an_invalid_tool() -> None:
    with pytest.raises(InvalidTool, match="neither a tool nor a function"):
        as_tool(3)  # type: ignore[arg-type]
    made = ReadTool()
    assert as_tool(made) is made
    assert isinstance(as_tool(weather), FunctionTool)


def test_a_decorated_function_is_still_a_function() -> None:
    assert tool(weather)("Rome", 2) == "Rome 2 C"
    assert repr(tool(weather)).startswith("<tool weather(city")


class Answer(BaseModel):
    n: int


class Odd:
    def __str__(self) -> str:
        return "odd"


@pytest.mark.parametrize(
    ("value", "content"),
    [
        (None, ""),
        ("text", "text"),
        ({"a": [1, None]}, {"a": [1, None]}),
        (Answer(n=1), {"n": 1}),
        (Odd(), "odd"),
        ({1}, [1]),
        (float("nan"), "nan"),
        ("half \ud800", "half ?"),
        (["half \ud800"], "['half \\ud800']"),
    ],
)
def test_whatever_is_returned_becomes_text_or_json(value: Any, content: Any) -> None:
    assert as_content(value) == content


def test_the_subject_of_a_function_is_its_arguments_as_compact_sorted_json(tmp_path: Path) -> None:
    assert tool(weather).subject(context(tmp_path), {"b": 1, "a": "ä"}) == Subject.text('{"a":"ä","b":1}')


def test_default_preview_shows_the_arguments_as_they_are(tmp_path: Path) -> None:
    preview = tool(weather).preview(context(tmp_path), {"city": "Rome"})
    assert preview.raw_input == preview.structured_input == {"city": "Rome"}
    assert preview.working_directory == str(tmp_path)


# ---- read and write -------------------------------------------------------------------------------------------


async def test_files_tool_reads_numbered_lines(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\r\nthree\n")
    assert await call(ReadTool(), tmp_path, path="a.txt", offset=2, limit=1) == "L2: two"
    assert await call(ReadTool(), tmp_path, path="a.txt") == "L1: one\nL2: two\nL3: three"
    assert await call(ReadTool(), tmp_path, path="a.txt", offset=9) == "(no lines)"


@pytest.mark.parametrize(
    ("path", "words"), [("none", "does not exist"), (".", "is not a file"), ("bin", "is not text")]
)
async def test_what_cannot_be_read_is_said(tmp_path: Path, path: str, words: str) -> None:
    (tmp_path / "bin").write_bytes(b"\xff\xfd\0")
    with pytest.raises(ToolError, match=words):
        await call(ReadTool(), tmp_path, path=path)


async def test_reading_outside_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyViolation, match="read roots"):
        await call(ReadTool(), tmp_path, path="/etc/passwd")


async def test_writing_creates_folders_and_replaces_the_whole(tmp_path: Path) -> None:
    assert await call(WriteTool(), tmp_path, path="deep/a.txt", content="ä") == "Wrote 2 byte(s) to deep/a.txt"
    await call(WriteTool(), tmp_path, path="deep/a.txt", content="b")
    assert (tmp_path / "deep" / "a.txt").read_text() == "b"
    assert [f.name for f in (tmp_path / "deep").iterdir()] == ["a.txt"]


async def test_replacing_keeps_the_mode_and_follows_the_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "real").chmod(0o750)
    (tmp_path / "link").symlink_to("real")
    await call(WriteTool(), tmp_path, path="link", content="new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o750


async def test_a_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ToolError, match="is a folder"):
        await call(WriteTool(), tmp_path, path="folder", content="x")


async def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ToolError, match="can be written: it is not a folder"):
        await call(WriteTool(), tmp_path, path="file/below", content="x")
    assert [f.name for f in tmp_path.iterdir()] == ["file"]


async def test_files_tool_denies_writes_outside_workspace_roots(tmp_path: Path) -> None:
    with pytest.raises(PolicyViolation, match="write roots"):
        await call(WriteTool(), tmp_path, path="../x", content="x")


def test_files_tool_authorization_preview_exposes_resolved_paths(tmp_path: Path) -> None:
    ctx, made = context(tmp_path), WriteTool()
    preview = made.preview(ctx, made.validate({"path": "./sub/../a.txt", "content": "secret"}))
    operation = preview.structured_input["operations"][0]
    assert operation == {"op": "create", "resolved_path": str(tmp_path / "a.txt")}
    assert made.subject(ctx, {"path": "./sub/../a.txt"}) == Subject.path("a.txt", absolute=(f"{tmp_path}/a.txt",))
    (tmp_path / "a.txt").touch()
    assert made.structured_input(ctx, {"path": "a.txt", "content": "x"})["operations"][0]["op"] == "set"


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (b"", {"bytes": 0, "lines": 0}),
        (b"one\ntwo", {"bytes": 7, "lines": 2}),
        (b"one\ntwo\n", {"bytes": 8, "lines": 2}),
        (b"x" * (2 << 20), {"bytes": 2 << 20}),
    ],
)
def test_the_preview_of_a_write_says_what_it_replaces(tmp_path: Path, content: bytes, size: dict[str, int]) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    [operation] = WriteTool().structured_input(context(tmp_path), {"path": "a.txt", "content": "x"})["operations"]
    assert operation["op"] == "set"
    assert operation["replaces"].items() >= size.items()
    (tmp_path / "a.txt").write_bytes(content[:-1] + b"?")
    if content:
        again = WriteTool().structured_input(context(tmp_path), {"path": "a.txt", "content": "x"})
        assert again["operations"] != [operation]


def test_reading_is_declared_read_only_and_parallel_and_writing_is_not() -> None:
    assert ToolCapability.READ_ONLY in ReadTool.spec.capabilities
    assert ReadTool.spec.execution_category == "ReadOnlyParallel"
    assert WriteTool.spec.effect == "idempotent"
    assert ShellTool.spec.effect == "once"


def test_the_result_of_a_tool_may_end_the_turn() -> None:
    assert ToolOutput("done", terminate=True).terminate


async def test_a_line_without_end_is_not_read_into_memory(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"x" * (40 << 20))
    tracemalloc.start()
    try:
        made = ReadTool()
        found = await made.execute(context(tmp_path), made.validate({"path": "long"}))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(found.content).endswith("characters are shown; read on with offset]")
    assert peak < 12 << 20


def test_a_command_elsewhere_has_its_folder_in_its_subject(tmp_path: Path) -> None:
    (tmp_path / "scratch dir").mkdir()
    subject = ShellTool().subject(context(tmp_path), {"command": "sh check.sh", "working_directory": "scratch dir"})
    assert subject == Subject.shell(f"cd '{tmp_path}/scratch dir' && sh check.sh")


def test_what_a_second_run_would_do_and_what_may_run_beside_others_can_be_said() -> None:
    def put(key: str) -> str:
        return key

    def of(**options: Any) -> tuple[str, bool, str]:
        spec = FunctionTool(put, **options).spec
        return spec.effect, spec.parallel, spec.durability

    assert of() == ("once", False, "Ephemeral")
    assert of(effect="idempotent") == ("idempotent", False, "ReplaySafe")
    assert of(parallel=True) == ("once", True, "Ephemeral")
    assert of(reads_only=True) == ("none", True, "ReplaySafe")
    assert of(reads_only=True, parallel=False) == ("none", False, "ReplaySafe")
    assert tool(effect="idempotent", parallel=True)(put).spec.effect == "idempotent"
