"""`@name` in a question: what is a reference, what it means, and what stays text."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

import mentra_nb as mn
from mentra_nb import paths
from mentra_nb.notebook import extension
from mentra_nb.notebook.references.names import Notebook


class Lazy:
    """An object whose property must not run."""

    __slots__ = ("slot",)
    plain = 5

    def __init__(self) -> None:
        self.slot = 7

    @property
    def computed(self) -> int:
        raise SystemExit("the property ran")

    def __getattr__(self, name: str) -> Any:
        raise SystemExit("__getattr__ ran")


def notebook(**names: Any) -> Notebook:
    known = {"sales": pd.DataFrame({"amount": [1, 2]}), "fig": 3, "lazy": Lazy(), "Out": {2: 5}, **names}
    return Notebook(known, ["", "a = 1", "a + 4", "%%mentra"])


def referred(prompt: str, **names: Any) -> list[str]:
    return [each.label for each in notebook(**names).find(prompt).references]


@pytest.mark.parametrize(
    ("prompt", "labels"),
    [
        ("Which month in @sales looks odd, and why?", ["@sales"]),
        ("@sales.amount. (@fig) '@fig' [@fig]: @fig, @fig's", ["@sales.amount", "@fig"]),
        ("@Out[2] and @In[1]", ["@Out[2]", "@In[1]"]),
        ("@cell:-1", ["@cell:-1", "@cell:-1, its output"]),
        ("@cell:-2", ["@cell:-2"]),
        ("`@fig` and ``x ` @fig`` and @sales", ["@sales"]),
        ("```python\n@fig\n```\n@sales", ["@sales"]),
        ("~~~\n@fig\n```\n@fig", []),
        ("@fig\ndef f(): ...\n", []),
        ("  @fig(1,\n    2)\n  @fig\n  async def f(): ...\n@sales", ["@sales"]),
        ("@fig\nand a class", ["@fig"]),
        ("ann@fig.org a.b+c@fig x/@fig \\@fig @@fig", []),
        ("@types/fig @fig/core @fig-like @fig() @fig[0] @fig:x @nothing @", []),
        ("@fig.real @lazy.slot @lazy.plain", ["@fig.real", "@lazy.slot", "@lazy.plain"]),
        ("@lazy.computed @lazy.nothing @sales.nothing @sales.shape", ["@sales.shape"]),
    ],
)
def test_what_is_a_reference(prompt: str, labels: list[str]) -> None:
    assert referred(prompt) == labels


def test_the_question_itself_keeps_every_character_but_the_escape() -> None:
    prompt = "\\@fig {sales} $fig @sales\n```\n\\@fig\n```\n`\\@`"
    assert notebook().find(prompt).prompt == "@fig {sales} $fig @sales\n```\n\\@fig\n```\n`\\@`"


def test_what_means_nothing_is_said() -> None:
    def notes(prompt: str) -> str:
        (said,) = notebook().find(prompt).notes
        return said

    assert notes("@sale") == "there is no variable 'sale' (did you mean @sales?): @sale was sent as it is"
    assert "which a mention does not run" in notes("@lazy.computed")
    assert "there is no output 9" in notes("@Out[9]")
    assert "there is no cell 44" in notes("@In[44]")
    assert "there is no file ./none.csv" in notes("see @./none.csv.")
    assert "a word of its own" in notes("@sales[0]")


def test_err_is_the_last_error_unless_a_variable_has_that_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("sys.last_value", raising=False)
    assert "no error yet" in notebook().find("@err").notes[0]
    monkeypatch.setattr("sys.last_value", ValueError("bad"), raising=False)
    assert isinstance(notebook().find("@err").references[0].value, ValueError)
    assert notebook(err=1).find("@err").references[0].value == 1


def test_values_are_those_of_the_notebook() -> None:
    found = {each.label: each.value for each in notebook().find("@cell:-1 @Out[2] @lazy.slot @sales.amount").references}
    assert found["@cell:-1"] == "a + 4"
    assert found["@cell:-1, its output"] == found["@Out[2]"] == 5
    assert found["@lazy.slot"] == 7
    assert found["@sales.amount"].tolist() == [1, 2]


def test_include_is_the_same_and_must_be_there() -> None:
    found = notebook().find("Well? @sales", ["sales", "@Out[2]", "cell:-2"])
    assert [each.label for each in found.references] == ["@sales", "@Out[2]", "@cell:-2"]
    with pytest.raises(mn.errors.ConfigurationError, match="-i sale: there is no variable 'sale'"):
        notebook().find("Well?", ["sale"])


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    from mentra_nb.chat import engine

    monkeypatch.setenv("MENTRA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    engine.reset()
    made = mn.ScriptedProvider([mn.scripted.text("March.")])
    mn.use(made)
    yield made
    engine.reset()


def test_a_question_carries_what_it_names(shell: Any, model: Any) -> None:
    shell.user_ns["sales"] = pd.DataFrame({"month": ["2026-03"], "amount": [9.0]})
    shell.run_cell_magic("mentra", "", "Which month in @sales looks odd, and why?")
    text = model.recorded_requests[0].messages[0].text()
    assert text.startswith("Which month in @sales looks odd, and why?\n\nWhat the question refers to")
    assert "@sales: pandas.DataFrame, 1 row × 2 columns" in text
    assert mn.turns().prompt.iloc[-1] == text


def test_dry_shows_exactly_what_would_be_sent_and_sends_nothing(shell: Any, model: Any) -> None:
    shell.user_ns["sales"] = pd.DataFrame({"month": ["2026-03"]})
    found = shell.run_line_magic("mentra", "--dry -i sales What of @sals?")
    assert model.recorded_requests == []
    assert len(mn.turns()) == len(mn.sessions()) == 0
    shown = repr(found)
    for part in ("nothing was sent", "did you mean @sales?", ": free", "tokens, "):
        assert part in shown
    shell.run_line_magic("mentra", "-i sales What of @sals?")
    (message,) = model.recorded_requests[0].messages
    assert message.text() == found.text
    about, most = found.request_tokens
    assert 0 < found.tokens < about < most


def test_dry_gives_the_range_of_the_price_and_knows_no_pictures(shell: Any, model: Any) -> None:
    def dry(name: str) -> mn.Preview:
        mn.connect(name, "http://127.0.0.1:9/v1", model="m")
        found: mn.Preview = shell.run_line_magic("mentra", "--dry what?")
        return found

    assert "its price is not known" in repr(dry("lab"))
    folder = paths.record_folder()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prices.csv").write_text("provider,model,input_mtok,output_mtok\nlab2,m,1,10\n")
    found = dry("lab2")
    assert found.request_tokens is not None
    assert found.cost_usd is not None
    about, most = found.request_tokens
    assert found.cost_usd == pytest.approx((about / 1e6, (most + 10 * 8192) / 1e6))
    assert "for the first request and its answer" in repr(found)


def test_a_refused_file_sends_nothing(shell: Any, model: Any, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("x")
    with pytest.raises(mn.errors.OperationDenied, match="may hold keys or passwords"):
        shell.run_line_magic("mentra", "what is in @./.env then")
    assert model.recorded_requests == []


def test_files_and_columns_are_completed(shell: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for name in ("data.csv", ".env", "key.pem"):
        (tmp_path / name).write_text("x")
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    shell.user_ns.update(sales=pd.DataFrame({"amount": [1], "two words": [2]}), salary=1, lazy=Lazy())

    def found(line: str, text: str = "") -> list[str]:
        context = SimpleNamespace(line_with_cursor=line, cursor_position=len(line), full_text=text + line)
        return [each.text for each in extension.complete(context)["completions"]]

    assert found("%mentra what of @sal") == ["@salary", "@sales"]
    assert found("what of (@sal", "%%mentra -m demo\n") == ["@salary", "@sales"]
    assert found("what of @sal", "x = 1\n") == []
    assert found("%mentra @sales.am") == ["@sales.amount"]
    assert found("%mentra @lazy.") == ["@lazy.slot"]
    assert found("%mentra see @./d") == ["@./data/", "@./data.csv"]
    assert found("%mentra see @./k") == []
    assert found("%mentra -i sal") == ["salary", "sales"]
    assert found("%mentra ann@sal") == []
