"""`mn.map(dry=True)`: what a map would ask and cost, without a request."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest
from kits.row_models import RowModel

import mentra_nb as mn
from mentra_nb.content import TokenUsage
from mentra_nb.paths import record_folder

FRAME = pd.DataFrame({"text": [f"The parcel {number} came late, and nobody answered." for number in range(200)]})
DRY: dict[str, Any] = {"dry": True}


@pytest.fixture
def priced(model: RowModel) -> RowModel:
    folder = Path(record_folder())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prices.csv").write_text("provider,model,input_mtok,output_mtok\nrows,m,2,10\n")
    return model


def test_rows_requests_and_a_range_of_tokens_and_dollars_without_a_request(priced: RowModel) -> None:
    twice = pd.concat([FRAME, FRAME])
    found = mn.map("Is this a complaint? {text}", twice, as_=bool, **DRY)
    assert found.columns.tolist() == [
        *("model", "rows", "requests", "least_tokens", "most_tokens", "least_usd", "most_usd")
    ]
    row = found.iloc[0]
    assert (row.model, row.rows, row.requests) == ("rows/m", 400, 200)
    assert 0 < row.least_tokens < row.most_tokens
    assert 0 < row.least_usd < row.most_usd < 1
    assert priced.requests == []


def test_what_is_stored_is_not_counted_and_its_answers_say_how_long_an_answer_is(priced: RowModel) -> None:
    before = mn.map("Tell of {text}", FRAME, **DRY).iloc[0]
    priced.answer = lambda prompt: "yes"
    mn.map("Tell of {text}", FRAME[:50], progress=False)
    after = mn.map("Tell of {text}", FRAME, **DRY).iloc[0]
    assert after.requests == 150
    assert after.most_tokens / after.requests < before.most_tokens / before.requests - 400
    assert mn.map("Tell of {text}", FRAME, cache="refresh", **DRY).requests[0] == 200
    assert mn.map("Tell of {text}", FRAME[:50], **DRY).iloc[0, 2:].tolist() == [0, 0, 0, 0.0, 0.0]


def test_the_cost_of_the_map_lies_in_the_range(priced: RowModel) -> None:
    priced.answer = lambda prompt: '{"value": "bad"}'
    told = mn.map("Judge: {text}", FRAME, as_=Literal["good", "bad"], **DRY).iloc[0]
    sent = sum(len(f"Judge: {text}") for text in FRAME.text) / 4 + 200 * 40
    priced.usage = TokenUsage(input_tokens=round(sent / 200), output_tokens=8)
    mn.map("Judge: {text}", FRAME, as_=Literal["good", "bad"], progress=False)
    assert told.least_tokens < sent + 8 * 200 < told.most_tokens


def test_the_cost_that_is_said_is_the_one_in_the_record(recorded: RowModel) -> None:
    folder = Path(record_folder())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prices.csv").write_text("provider,model,input_mtok,output_mtok\nrows,m,2,10\n")
    recorded.answer = lambda prompt: prompt
    made = iter(TokenUsage(input_tokens=n, output_tokens=7 * n % 5) for n in range(1, 8))
    recorded.on_request = lambda: setattr(recorded, "usage", next(made))
    mn.map("{value}", [str(n) for n in range(7)], workers=1, progress=False)
    told = float(mn.turns().answer[0].split("; ")[-1].removesuffix(" usd"))
    assert told == pytest.approx(mn.usage(by="map").cost_usd[0], rel=1e-3)


def test_a_model_without_a_price_has_null_costs_and_each_model_has_a_row(model: RowModel) -> None:
    found = mn.map("Judge: {text}", FRAME, model=["rows/a", "rows/b"], **DRY)
    assert found.model.tolist() == ["rows/a", "rows/b"]
    assert found[["least_usd", "most_usd"]].isna().all(axis=None)
