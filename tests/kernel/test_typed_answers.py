"""`--as` in a real kernel: the value of an answer, how it is shown, and an answer that does not fit."""

from __future__ import annotations

import json
from typing import Any

import pytest
from kits.notebooks import Notebook

pytestmark = pytest.mark.kernel

TYPED = """
from contextlib import asynccontextmanager
class Typed(s.ScriptedProvider):
    'Gives each of the values by the tool that receives the answer.'
    def __init__(self, values):
        super().__init__([s.text('')])
        self.values = values
    @asynccontextmanager
    async def stream(self, request):
        [name] = [tool.name for tool in request.tools if tool.name.startswith('mentra_terminal_')]
        self.recorded_requests.append(request)
        async with s.ScriptedProvider([s.tool_calls([(name, self.values.pop(0))])]).stream(request) as events:
            yield events
from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypedDict
from pydantic import BaseModel
@dataclass
class City:
    name: str
    people: int
class Place(BaseModel):
    name: str
class Colour(Enum):
    RED = 'red'
class Row(TypedDict):
    a: int
OSLO = {'name': 'Oslo', 'people': 7}
"""
TABLE = {"columns": ["city", "people"], "rows": [["<b>Oslo</b> $x$", 7], ["Bergen", None]]}


def answer_with(notebook: Notebook, *values: Any) -> None:
    assert notebook.run(TYPED).status == "ok"
    sent = f"model = Typed(json.loads({json.dumps(list(values))!r}))"
    assert notebook.run(f"{sent}; engine().runtime.register_provider_instance(model)").status == "ok"


@pytest.mark.parametrize(
    ("named", "given", "expected"),
    [
        ("City", {"name": "Oslo", "people": 7}, "City(name='Oslo', people=7)"),
        ("Place", {"name": "Oslo"}, "Place(name='Oslo')"),
        ("Row", {"a": 1}, "{'a': 1}"),
        ("Colour", {"value": "red"}, "<Colour.RED: 'red'>"),
        ("int", {"value": 3}, "3"),
        ("bool", {"value": True}, "True"),
        ("'list[City]'", {"value": [{"name": "Oslo", "people": 7}]}, "[City(name='Oslo', people=7)]"),
        ("\"Literal['a', 'b'] | None\"", {"value": "b"}, "'b'"),
        ("json", {"value": {"a": [1, None]}}, "{'a': [1, None]}"),
    ],
)
def test_the_answer_is_a_value_of_the_named_type(notebook: Notebook, named: str, given: Any, expected: str) -> None:
    answer_with(notebook, given, given)
    cell = notebook.run(f"%%mentra --as {named}\nwhich?")
    assert cell.status == "ok", cell.error
    assert notebook.run("print(repr(_mentra.value))").stdout == f"{expected}\n"
    assert cell.texts().splitlines()[1:] == [expected]  # below the footer, once
    notebook.run(f"x = %mentra --as {named} which?")
    assert notebook.run("print(repr(x.value))").stdout == f"{expected}\n"


def test_a_table_is_a_frame_whose_text_is_inert(notebook: Notebook) -> None:
    answer_with(notebook, TABLE)
    cell = notebook.run("%%mentra --as df\nwhich?")
    assert notebook.value("[list(_mentra.value.columns), _mentra.to_df() is _mentra.value]") == [
        ["city", "people"],
        True,
    ]
    [shown] = [data for data in cell.outputs() if "<table" in data.get("text/html", "")]
    assert "&lt;b&gt;Oslo" in shown["text/html"]
    assert "tex2jax_ignore" in shown["text/html"]


def test_records_become_rows(notebook: Notebook) -> None:
    answer_with(notebook, {"value": [{"name": "Oslo", "people": 7}]})
    notebook.run("r = mn.ask('which?', as_=list[City])")
    assert notebook.value("r.to_df().to_dict('records')") == [{"name": "Oslo", "people": 7}]
    notebook.script("s.text('words')")
    assert "this reply has no value" in notebook.run("mn.ask('which?').to_df()").error


def test_an_answer_that_does_not_fit_is_asked_for_once_more_and_then_one_sentence(notebook: Notebook) -> None:
    bad = {"columns": ["a", "b"], "rows": [[1]]}
    answer_with(notebook, bad, {"columns": ["a"], "rows": [[1]]})
    assert notebook.run("%%mentra --as df\nwhich?").status == "ok"
    assert notebook.value("[len(model.recorded_requests), _mentra.value.a.tolist()]") == [2, [1]]
    answer_with(notebook, bad, bad)
    cell = notebook.run("%%mentra --as df\nwhich?")
    problem = "the model's answer does not match df: Value error, row 1 has 1 cells, and there are 2 columns"
    assert cell.error.endswith(problem)
    assert "Traceback" not in cell.error
    caught = "try:\n    mn.ask('which?', as_='df')\nexcept mn.errors.InvalidOutput as error:\n    kept = error.text"
    answer_with(notebook, bad, bad)
    notebook.run(caught)
    assert json.loads(notebook.value("kept")) == bad


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("Cty", "there is no 'Cty' in this notebook: define the class first"),
        ("OSLO", "'OSLO' is a dict, not a type"),
        ("'print(1)'", "'print(1)' is not a type"),
        ("dict[str, int]", "one with blanks goes in quotes"),
        ("'City.nothing'", "'City.nothing' is not a type"),
    ],
)
def test_what_is_not_a_type_is_refused_before_anything_is_asked(notebook: Notebook, named: str, said: str) -> None:
    answer_with(notebook, {})
    cell = notebook.run(f"%%mentra --as {named}\nwhich?")
    assert said in cell.error
    assert notebook.value("len(model.recorded_requests)") == 0
