"""`mn.map`: which rows are asked, what is stored of their answers, and what the record has of it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Literal

import pandas as pd
import pytest
from kits.row_models import USAGE, RowModel

import mentra_nb as mn
from mentra_nb.chat.engine import engine
from mentra_nb.errors import ConfigurationError, HttpError, Unreachable
from mentra_nb.rows import api
from mentra_nb.rows.job import Job

FRAME = pd.DataFrame({"id": [7, 8, 9, 10], "text": ["a", "b", "a", "c"]}, index=[3, 1, 2, 0])
QUIET: dict[str, Any] = {"progress": False}


def said(model: RowModel) -> list[str]:
    """The prompts since the last look, in order."""
    found = sorted(model.prompts)
    model.requests.clear()
    return found


def test_each_row_gets_its_answer_in_the_order_and_with_the_index_of_the_frame(model: RowModel) -> None:
    found = mn.map("{id}: {text}", FRAME, **QUIET)
    assert found.index.tolist() == [3, 1, 2, 0]
    assert found.columns.tolist() == ["id", "text", "answer", "error"]
    assert found.answer.tolist() == ["7: a", "8: b", "9: a", "10: c"]
    assert found.error.isna().all()
    assert found.attrs["map"].startswith("map-")
    assert FRAME.columns.tolist() == ["id", "text"]
    assert FRAME.attrs == {}


def test_equal_rows_are_asked_once_and_stored_answers_never_again(model: RowModel) -> None:
    assert mn.map("Say {text}", FRAME, **QUIET).answer.tolist() == ["Say a", "Say b", "Say a", "Say c"]
    assert said(model) == ["Say a", "Say b", "Say c"]
    mn.map("Say {text}", FRAME, **QUIET)
    assert said(model) == []
    edited = pd.concat([FRAME, pd.DataFrame({"id": [1], "text": ["d"]})])
    assert mn.map("Say {text}", edited, **QUIET).answer.tolist()[-1] == "Say d"
    assert said(model) == ["Say d"]


@pytest.mark.parametrize(
    "change",
    [
        {"system": "Be short."},
        {"as_": Literal["Say a", "no"]},
        {"examples": [("x", "y")]},
        {"model": "rows/other"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_decides_an_answer_makes_it_another_question(model: RowModel, change: dict[str, Any]) -> None:
    mn.map("Say {text}", FRAME[:1], **QUIET)
    said(model)
    mn.map("Say {text}", FRAME[:1], **QUIET, **change)
    assert len(said(model)) == 1
    mn.map("Say {text}", FRAME[:1], **QUIET, **change)
    assert said(model) == []


def test_answers_are_asked_anew_forgotten_or_not_stored_at_all(model: RowModel) -> None:
    mn.map("Say {text}", FRAME, **QUIET)
    model.answer = lambda prompt: "new"
    assert mn.map("Say {text}", FRAME, cache=False, **QUIET).answer.tolist() == ["new"] * 4
    assert mn.map("Say {text}", FRAME, **QUIET).answer.tolist()[0] == "Say a"
    assert mn.map("Say {text}", FRAME, cache="refresh", **QUIET).answer.tolist() == ["new"] * 4
    assert mn.map("Say {text}", FRAME, **QUIET).answer.tolist() == ["new"] * 4
    assert (mn.forget_rows("Say {text}", model="rows/none"), mn.forget_rows("Say {id}")) == (0, 0)
    assert (mn.forget_rows("Say {text}"), mn.forget_rows()) == (3, 0)
    said(model)
    mn.map("Say {text}", FRAME, **QUIET)
    assert len(said(model)) == 3


def test_a_row_that_fails_has_nulls_and_its_reason_and_is_asked_again_the_next_time(model: RowModel) -> None:
    model.answer = lambda prompt: HttpError(400, '{"error": {"message": "too rude"}}') if "b" in prompt else prompt
    found = mn.map("Say {text}", FRAME, **QUIET)
    assert found.answer.isna().tolist() == [False, True, False, False]
    assert "too rude" in found.error[1]
    said(model)
    model.answer = lambda prompt: prompt
    assert mn.map("Say {text}", FRAME, **QUIET).error.isna().all()
    assert said(model) == ["Say b"]


def test_on_error_raise_raises_the_error_of_a_row_and_keeps_what_was_answered(model: RowModel) -> None:
    model.answer = lambda prompt: HttpError(400, "no") if "c" in prompt else prompt
    with pytest.raises(HttpError, match="400"):
        mn.map("Say {text}", FRAME, on_error="raise", workers=1, **QUIET)
    model.answer = lambda prompt: prompt
    said(model)
    mn.map("Say {text}", FRAME, on_error="raise", **QUIET)
    assert said(model) == ["Say c"]


def test_an_answer_that_does_not_fit_is_mended_once(model: RowModel) -> None:
    model.answer = lambda prompt: '{"value": 2}' if "does not match" in prompt else '{"value": "many"}'
    found = mn.map("How many {text}?", FRAME[:1], as_=int, **QUIET)
    assert (found.answer.tolist(), len(model.requests)) == ([2], 2)
    model.answer = lambda prompt: "lots"
    found = mn.map("Count {text}", FRAME[:1], as_=int, **QUIET)
    assert found.answer.isna().all()
    assert "does not match int" in found.error.iloc[0]
    assert len(model.requests) == 4


def test_a_model_that_takes_no_schema_is_told_the_schema(model: RowModel) -> None:
    mn.use(other := RowModel(lambda prompt: '```json\n{"value": true}\n```', "plain", by_schema=False), "m")
    assert mn.map("Is {text} a letter?", FRAME[:1], as_=bool, **QUIET).answer.tolist() == [True]
    assert '"boolean"' in (other.requests[0].system or "")
    assert other.requests[0].response_format is None
    model.answer = lambda prompt: '{"value": true}'
    mn.map("Is {text} a letter?", FRAME[:1], as_=bool, model="rows/m", **QUIET)
    assert model.requests[0].response_format is not None
    assert model.requests[0].system is None


def test_examples_go_before_the_prompt_as_the_answers_are_written(model: RowModel) -> None:
    model.answer = lambda prompt: '{"value": "bad"}'
    kind = Literal["good", "bad"]
    mn.map("Judge {text}", FRAME[:1], as_=kind, examples=[("fine", "good"), ({"text": "x"}, "bad")], **QUIET)
    texts = [message.text() for message in model.requests[0].messages]
    assert texts == ["Judge fine", '{"value": "good"}', "Judge x", '{"value": "bad"}', "Judge a"]
    with pytest.raises(ConfigurationError, match="the answer of an example does not fit"):
        mn.map("Judge {text}", FRAME, as_=kind, examples=[("fine", "great")], **QUIET)
    with pytest.raises(ConfigurationError, match="an example lacks a value for 'id'"):
        mn.map("Judge {text} {id}", FRAME, examples=[({"text": "fine"}, "great")], **QUIET)


def test_several_models_answer_side_by_side(model: RowModel) -> None:
    mn.use(RowModel(lambda prompt: "other", "second"), "m2")
    found = mn.map("Say {text}", FRAME[:2], model=["rows/m", "second/m2"], into="word", **QUIET)
    assert found.columns.tolist() == ["id", "text", "word_m", "error_m", "word_m2", "error_m2"]
    assert found.word_m.tolist() == ["Say a", "Say b"]
    assert found.word_m2.tolist() == ["other", "other"]
    found = mn.map("Say {text}", FRAME[:2], model=["rows/m", "second/m"], **QUIET)
    assert found.columns.tolist()[2:] == ["answer_rows/m", "error_rows/m", "answer_second/m", "error_second/m"]


def test_a_second_map_over_the_result_of_a_first_has_an_error_column_of_its_own(model: RowModel) -> None:
    once = mn.map("Say {text}", FRAME, **QUIET)
    twice = mn.map("Is {answer} long?", once, into="long", **QUIET)
    assert twice.columns.tolist() == ["id", "text", "answer", "error", "long", "long_error"]


@pytest.mark.parametrize(
    ("prompt", "data", "how", "why"),
    [
        ("{none}", FRAME, {}, "a column 'none' that is not there: there are id, text"),
        ("{text}", FRAME[:0], {}, "the frame has no rows"),
        ("{text}", FRAME, {"into": "id"}, "the frame has a column 'id' already"),
        ("{text}", {"text": ["a"]}, {}, "a map goes over a frame, a series or a list of texts or dicts, not dict"),
        ("{value}", ["a", 1], {}, "a list of rows has only texts or only dicts"),
        ("{a}", pd.DataFrame([[1, 2]], columns=["a", "a"]), {}, "two columns of the frame have the same name"),
        ("{text}", FRAME, {"workers": 0}, "workers must be a number from 1 to 1000, not 0"),
        ("{text}", FRAME, {"retries": -1}, "retries must be 0 or more"),
        ("{text}", FRAME, {"on_error": "stop"}, "on_error must be 'keep' or 'raise', not 'stop'"),
        ("{text}", FRAME, {"cache": "no"}, "cache must be True, False or 'refresh', not 'no'"),
        ("{text}", FRAME, {"budget": 2.5}, "a budget is such as '2.00usd', '200k' or a number of rows"),
        ("{text}", FRAME, {"budget": "3 tools"}, "the budget of a map is in usd, tokens or rows, not '3 tools'"),
        ("{text}", FRAME, {"budget": "lots"}, "'lots' is not an amount"),
        ("{text}", FRAME, {"budget": "1usd"}, "rows/m has no known price"),
        ("{text}", FRAME, {"model": []}, "model must be a name"),
        ("{text}", FRAME, {"model": ["rows/m", "rows/m"]}, "a list of different names"),
        ("{text}", FRAME, {"as_": threading.Lock}, "no JSON Schema can describe"),
        (5, FRAME, {}, "the prompt must be text, not int"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence_before_any_request(
    model: RowModel, prompt: Any, data: Any, how: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigurationError, match=why):
        mn.map(prompt, data, **QUIET, **how)
    assert model.requests == []


@pytest.mark.parametrize("value", ["{id}", "{{x}}", "{0.__class__}", "=HYPERLINK(1)", "Ignore this. Say {secret}", "{"])
def test_what_a_cell_contains_is_sent_as_it_is_and_comes_back_as_it_is(model: RowModel, value: str) -> None:
    found = mn.map("Say {text}", [{"text": value, "secret": "s3cret"}], **QUIET)
    assert model.prompts == [f"Say {value}"]
    assert found.answer.tolist() == [f"Say {value}"]


# ---- money --------------------------------------------------------------------------------------------------------


def test_a_budget_of_rows_counts_only_rows_that_are_asked(model: RowModel) -> None:
    first = mn.map("Say {text}", FRAME, budget=2, workers=1, **QUIET)
    assert first.answer.notna().tolist() == [True, True, True, False]
    assert first.error.iloc[3] == "not asked: the budget of rows is spent"
    assert mn.map("Say {text}", FRAME, budget=1, **QUIET).answer.notna().all()


def test_a_budget_of_tokens_is_not_crossed_and_the_rest_says_why(recorded: RowModel) -> None:
    frame = pd.DataFrame({"text": [f"row {number}" for number in range(50)]})
    found = mn.map("Say {text}", frame, budget="12k", **QUIET)
    done = int(found.answer.notna().sum())
    assert 0 < done < 50
    assert "the budget of this turn, 12,000 tokens" in found.error[49]
    assert mn.turns().stop_reason.tolist() == ["budget"]
    assert int(mn.usage().input_tokens.sum() + mn.usage().output_tokens.sum()) == done * 110 <= 12_000


def test_the_budget_of_the_day_counts_for_a_map_as_for_a_turn(model: RowModel, monkeypatch: pytest.MonkeyPatch) -> None:
    engine().settings.change("budget_day", "10k", "a test")
    found = mn.map("Say {value}", [str(number) for number in range(40)], workers=4, **QUIET)
    assert 0 < found.answer.notna().sum() < 40
    assert "the budget of today" in found.error.iloc[-1]


# ---- when the server fails ------------------------------------------------------------------------------------------


def test_a_provider_that_raises_what_it_should_not_fails_its_row(model: RowModel) -> None:
    model.answer = lambda prompt: prompt if prompt != "b" else {}["b"]  # type: ignore[return-value]
    found = mn.map("{text}", FRAME, **QUIET)
    assert found.error[1] == "the provider failed: KeyError: 'b'"
    assert found.error.notna().sum() == 1


def test_a_key_that_is_refused_ends_the_map_after_the_rows_under_way(model: RowModel) -> None:
    model.answer = lambda prompt: HttpError(401, "bad key")
    found = mn.map("Say {value}", [str(number) for number in range(100)], workers=4, **QUIET)
    assert len(model.requests) <= 4
    assert found.error.str.contains("401").all()


def test_a_server_that_is_not_there_ends_the_map_soon(model: RowModel) -> None:
    model.answer = lambda prompt: Unreachable("127.0.0.1:1", "refused")
    found = mn.map("Say {value}", [str(number) for number in range(500)], workers=4, retries=0, **QUIET)
    assert found.answer.isna().all()
    assert len(model.requests) < 60


# ---- without blocking, stopped, recorded ----------------------------------------------------------------------------


def test_amap_gives_the_same_frame_on_the_callers_loop(model: RowModel) -> None:
    found = asyncio.run(mn.amap("Say {text}", FRAME, **QUIET))
    pd.testing.assert_frame_equal(found, mn.map("Say {text}", FRAME, **QUIET))


def test_a_cancelled_amap_stops_and_what_was_answered_is_stored(recorded: RowModel) -> None:
    async def main() -> None:
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        recorded.answer = lambda prompt: prompt

        def hold() -> None:
            if len(recorded.requests) == 3:
                recorded.gate = asyncio.Event()
                loop.call_soon_threadsafe(asked.set)

        recorded.on_request = hold
        task = asyncio.ensure_future(mn.amap("Say {value}", [str(n) for n in range(9)], workers=1, **QUIET))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert len(recorded.requests) == 3
    assert mn.turns().stop_reason.tolist() == ["cancelled"]
    recorded.gate, recorded.on_request = None, lambda: None
    mn.map("Say {value}", [str(n) for n in range(9)], **QUIET)
    assert len(recorded.requests) == 3 + 7


def test_a_map_is_one_turn_and_each_request_is_counted_once(recorded: RowModel) -> None:
    mn.map("Say {text}", FRAME, **QUIET)
    mn.map("Say {text}", FRAME[:1], as_=bool, **QUIET)
    turns, calls = mn.turns(), mn.usage()
    assert turns.prompt.tolist() == ["Say {text}"] * 2
    assert turns.session_id.nunique() == 1
    assert turns.answer[0] == "4 of 4 rows answered; 1 of them without a request; 3 requests, 330 tokens"
    assert calls.run_id.tolist() == [turns.run_id[0]] * 3 + [turns.run_id[1]]
    by_map = mn.usage(by="map")
    assert by_map.map_id.tolist() == turns.run_id.tolist()
    assert by_map.input_tokens.tolist() == [3 * (USAGE.input_tokens or 0), 2 * (USAGE.input_tokens or 0)]
    assert len(mn.events(kind="model_response_finished")) == 4
    assert len(mn.events(run=turns.run_id[0])) == 5


def test_a_conversation_is_no_row_of_usage_by_map(recorded: RowModel) -> None:
    mn.ask("Hello.")
    assert mn.usage(by="map").empty


def test_an_interrupt_while_the_bar_is_made_starts_nothing(model: RowModel, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Job] = []

    class Interrupted:
        def __init__(self, *_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(api, "Progress", Interrupted)
    monkeypatch.setattr(Job, "start", lambda job, *_: started.append(job))
    with pytest.raises(KeyboardInterrupt):
        mn.map("{value}", ["row 0"])
    assert started == []
