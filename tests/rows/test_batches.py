"""`mn.map(..., batch=True)`: rows handed to a provider at once, over HTTP in the formats that providers document."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest
from kits.batch_server import BatchServer, Fate
from kits.row_models import RowModel

import mentra_nb as mn
from mentra_nb.amounts import PARTS
from mentra_nb.chat.engine import engine
from mentra_nb.errors import ConfigurationError
from mentra_nb.event.types import TurnOrigin
from mentra_nb.paths import record_folder
from mentra_nb.rows import batching
from mentra_nb.rows.job import Job, Order

Wire = Literal["responses", "chat_completions", "anthropic_messages", "gemini_generate_content"]
WIRES: list[Wire] = ["responses", "chat_completions", "anthropic_messages", "gemini_generate_content"]
NAMES = [f"row {number}" for number in range(8)]


@pytest.fixture(params=WIRES)
def server(request: pytest.FixtureRequest, model: RowModel, quick: None) -> Iterator[BatchServer]:
    """The server of one wire, which is asked by default."""
    with serving(request.param) as made:
        yield made


@pytest.fixture
def chat(model: RowModel, quick: None) -> Iterator[BatchServer]:
    """The server of chat completions, for what does not depend on the format."""
    with serving("chat_completions") as made:
        yield made


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let batches be looked at often."""
    monkeypatch.setattr(batching, "FIRST_LOOK", 0.01)
    monkeypatch.setattr(batching, "LONGEST_LOOK", 0.05)


class serving(BatchServer):  # noqa: N801  # used as a statement
    """A server that is connected and asked by default."""

    def __enter__(self) -> serving:
        super().__enter__()
        mn.connect("lab", self.url, wire=self.wire, model="m")
        return self


def asked(names: Any = NAMES, **how: Any) -> Any:
    return mn.map("{value}", names, batch=True, **{"progress": False, **how})


def answers(found: Any) -> list[str | None]:
    return [None if isinstance(error, str) else answer for answer, error in zip(found.answer, found.error, strict=True)]


def kept() -> list[Any]:
    """The batches that the store has."""
    used = engine()
    found: list[Any] = used.call(used.runtime.store.load_row_batches, "lab/m")
    return found


# ---- each format ----------------------------------------------------------------------------------------------------


def test_rows_are_answered_in_one_batch_and_joined_whatever_the_order_of_its_results(server: BatchServer) -> None:
    found = asked([*NAMES, "row 0"])
    assert answers(found) == [f"yes to {name}" for name in [*NAMES, "row 0"]]
    assert [len(batch.requests) for batch in server.batches] == [8]
    assert (server.single, kept()) == ([], [])
    assert answers(asked()) == [f"yes to {name}" for name in NAMES]
    assert len(server.batches) == 1


def test_of_rows_that_fail_some_are_asked_again_singly_and_some_are_errors(server: BatchServer) -> None:
    fates: dict[str, Fate] = {"row 1": "refuse", "row 2": "overload", "row 3": "break", "row 4": "lose"}
    server.fate = lambda prompt: fates.get(prompt, "answer")
    found = asked()
    assert [name for name, answer in zip(NAMES, answers(found), strict=True) if answer is None] == ["row 1"]
    assert "too rude" in found.error[1]
    assert sorted(server.single) == ["row 2", "row 3", "row 4"]
    assert kept() == []


ODD: list[Any] = [
    {"status": 3, "request_counts": [], "errors": [1], "metadata": [], "results_url": 0, "response": "x", "error": []},
    {"errors": {"data": 5}, "metadata": {"batchStats": {"successfulRequestCount": "many"}, "output": "x"}, "id": {}},
    {"metadata": {"batchStats": 1}},
    [],
]
"""Documents that no provider sends for a batch."""


def test_a_state_that_is_not_as_documented_is_looked_at_again(server: BatchServer) -> None:
    server.odd = [*ODD]
    assert answers(asked()) == [f"yes to {name}" for name in NAMES]
    assert (server.odd, server.single, sum(server.handed_in.values())) == ([], [], 8)


def test_a_list_that_cannot_be_read_is_not_one_without_the_batch(server: BatchServer) -> None:
    server.loses_answers, server.odd = 1, [{"data": 5, "operations": 5}]
    assert answers(asked()) == [f"yes to {name}" for name in NAMES]
    assert (server.odd, sum(server.handed_in.values())) == ([], 8)


def test_a_batch_that_never_ends_fails_once_it_is_older_than_any(
    chat: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "LONGEST_BATCH", 0.1)
    chat.looks = -1
    assert set(asked().error) == {"the batch has not ended: the provider calls it in_progress"}


def test_a_batch_that_expires_keeps_what_it_answered_and_the_next_map_hands_in_the_rest(server: BatchServer) -> None:
    half = 0 if server.wire == "gemini_generate_content" else 4  # there one that expires has no results
    server.ending = "expired"
    found = asked()
    assert answers(found) == [f"yes to {name}" for name in NAMES[:half]] + [None] * (8 - half)
    assert found.error[7].endswith("before this row was answered: run the map again")
    server.ending = "ended"
    assert answers(asked()) == [f"yes to {name}" for name in NAMES]
    assert [server.handed_in[name] for name in NAMES] == [1] * half + [2] * (8 - half)
    assert server.single == []


def test_stop_cancels_the_batch_and_the_next_map_keeps_what_it_had_answered(server: BatchServer) -> None:
    server.looks = -1
    waits = threading.Event()
    server.on_call = lambda call: waits.set() if call.startswith("GET") else None
    found = stopped_once(waits)
    assert answers(found) == [None] * 8
    assert set(found.error) == {"not asked: the map was stopped"}
    assert any(call.endswith(("/cancel", ":cancel")) for call in server.calls)
    server.looks = 1
    assert answers(asked()) == [f"yes to {name}" for name in NAMES]
    again = 8 if server.wire == "gemini_generate_content" else 4  # there a cancelled batch has no results
    assert sum(server.handed_in.values()) == 8 + again


def stopped_once(waits: threading.Event) -> Any:
    """Run a map and stop it as a person does, once `waits` is set."""
    job, used = Job(Order("{value}", NAMES, batch=True)), engine()
    job.start(used, TurnOrigin())
    assert waits.wait(60)
    job.stop(used)
    return job.result(job.future.result(60))


def test_a_batch_whose_answer_was_lost_is_found_and_not_handed_in_again(server: BatchServer) -> None:
    server.loses_answers = 1
    assert answers(asked()) == [f"yes to {name}" for name in NAMES]
    assert len(server.batches) == 1
    assert set(server.handed_in.values()) == {1}


def test_a_batch_of_another_map_is_not_taken_for_one_whose_answer_was_lost(server: BatchServer) -> None:
    asked([f"other {number}" for number in range(8)])
    server.loses_answers = 1
    assert answers(asked()) == [f"yes to {name}" for name in NAMES]
    assert len(server.batches) == 2
    assert set(server.handed_in.values()) == {1}


def test_a_server_that_refuses_for_a_while_is_asked_again(server: BatchServer) -> None:
    server.looks = 3
    server.refuses.update({"GET": 3, "POST": 2})
    assert answers(asked()) == [f"yes to {name}" for name in NAMES]
    assert set(server.handed_in.values()) == {1}


def test_a_server_without_batches_is_asked_row_by_row_and_says_so(server: BatchServer) -> None:
    server.has_batches = False
    assert answers(asked()) == [f"yes to {name}" for name in NAMES]
    assert sorted(server.single) == NAMES
    assert kept() == []


# ---- what does not depend on the format -----------------------------------------------------------------------------


def test_the_record_says_why_rows_were_asked_singly(
    recorded: RowModel, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asked(progress=True).answer.tolist() == NAMES
    sentence = "rows has no batches, so each row was asked by itself at the full price"
    assert sentence in mn.turns().answer[0]
    assert sentence in capsys.readouterr().out


def test_a_batch_that_fails_as_a_whole_says_why(chat: BatchServer) -> None:
    chat.ending = "failed"
    found = asked()
    assert set(found.error) == {"the batch failed: too many tokens"}
    assert (chat.single, kept()) == ([], [])


def test_an_answer_that_does_not_fit_is_mended_by_a_single_request(chat: BatchServer) -> None:
    found = mn.map("{value}", NAMES[:2], as_=int, batch=True, progress=False)
    assert len(chat.single) == 2
    assert all("does not match int" in prompt for prompt in chat.single)
    assert found.error.notna().all()


def test_batch_is_true_or_false(model: RowModel) -> None:
    with pytest.raises(ConfigurationError, match="batch must be True or False, not 'yes'"):
        mn.map("{value}", NAMES, batch="yes", progress=False)  # type: ignore[arg-type]


def test_more_rows_than_one_batch_takes_are_handed_in_in_several(
    chat: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mentra_nb.providers.openai_batches.OpenAIBatches.most_requests", 3)
    assert answers(asked()) == [f"yes to {name}" for name in NAMES]
    assert sorted(len(batch.requests) for batch in chat.batches) == [2, 3, 3]
    monkeypatch.setattr(batching, "MOST_BYTES", 500)
    assert asked([f"new {number}" for number in range(5)]).error.isna().all()
    assert len(chat.batches) > 4


def test_an_edited_frame_waits_for_what_is_handed_in_and_hands_in_only_the_new(chat: BatchServer) -> None:
    left_behind(chat)
    found = asked([*NAMES[2:], "row 8"])
    assert answers(found) == [f"yes to {name}" for name in [*NAMES[2:], "row 8"]]
    assert set(chat.handed_in.values()) == {1}
    assert answers(asked(NAMES)) == [f"yes to {name}" for name in NAMES]
    assert len(chat.batches) == 2


def left_behind(server: BatchServer, *, known: bool = True) -> None:
    """Leave a batch behind as a process does that dies: with the provider's id of it, or before that was stored."""
    used, store = engine(), engine().runtime.store
    save = store.save_row_batch
    batches: list[Any] = []

    async def saved(batch: Any) -> None:
        batches.append(batch)
        await save(batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "save_row_batch", saved)
        asked(cache=False)
    used.call(save, batches[-1] if known else batches[0])


def test_a_batch_that_was_handed_in_but_not_noted_is_found_by_the_next_map(server: BatchServer) -> None:
    left_behind(server, known=False)
    assert kept()[0].provider_batch is None
    assert answers(asked()) == [f"yes to {name}" for name in NAMES]
    assert len(server.batches) == 1


def test_a_batch_that_never_arrived_is_handed_in_by_the_next_map(server: BatchServer) -> None:
    left_behind(server, known=False)
    server.batches.clear()
    assert answers(asked()) == [f"yes to {name}" for name in NAMES]
    assert len(server.batches) == 1
    assert kept() == []


def test_a_batch_that_the_provider_has_forgotten_is_handed_in_again(server: BatchServer) -> None:
    left_behind(server)
    server.batches.clear()
    assert answers(asked()) == [f"yes to {name}" for name in NAMES]
    assert len(server.batches) == 1


def test_two_maps_over_the_same_rows_at_once_hand_them_in_once(chat: BatchServer) -> None:
    chat.looks = 20
    taken, results = threading.Event(), list[Any]()
    chat.on_batch = lambda batch: taken.set()
    other = threading.Thread(target=lambda: results.append(asked()))
    other.start()
    assert taken.wait(60)
    results.append(asked())
    other.join(60)
    assert [answers(found) for found in results] == [[f"yes to {name}" for name in NAMES]] * 2
    assert set(chat.handed_in.values()) == {1}


def test_a_refused_key_ends_the_map_and_nothing_stays_reserved(chat: BatchServer) -> None:
    priced()
    chat.refuses.clear()
    chat._answer = lambda call: (401, {}, b'{"error": {"message": "bad key"}}')  # type: ignore[method-assign]
    found = asked(budget="5usd")
    assert found.error.str.contains("bad key").all()
    assert kept() == []
    assert spent(found) == 0


# ---- money ----------------------------------------------------------------------------------------------------------


def priced(sent: float = 2.0, made: float = 10.0) -> None:
    folder = Path(record_folder())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prices.csv").write_text(f"provider,model,input_mtok,output_mtok\nlab,m,{sent},{made}\n")


def spent(found: Any) -> float:
    """What the budget of a map has spent and reserved, in US dollars."""
    used = engine()
    counted = used.call(used.runtime.store.count_budget, "turn", found.attrs["map"], "usd")
    return float((counted.spent + counted.reserved) / PARTS["usd"])


def test_each_row_is_in_the_record_with_its_tokens_and_half_its_price(recorded: RowModel, quick: None) -> None:
    priced()
    with serving("chat_completions") as chat:
        chat.fate = lambda prompt: "overload" if prompt == "row 5" else "answer"
        found = asked()
        assert found.error.isna().all()
        usage = mn.usage()
    one = (50 * 2.0 + 5 * 10.0) / 1e6
    assert usage.input_tokens.sum() == 50 * 8
    assert usage.cost_usd.sum() == pytest.approx(7 * one / 2 + one)
    assert f"{7 * one / 2 + one:.4g} usd" in mn.turns().answer[0]


def test_a_budget_counts_half_the_price_and_cuts_the_batch(chat: BatchServer) -> None:
    priced()
    most = (8192 * 10.0 + 1_500 * 2.0) / 1e6 / 2  # of one row, about
    sizes = list[int]()
    chat.on_batch = lambda batch: sizes.append(len(batch.requests))
    found = asked(budget=f"{3.5 * most:.4f}usd")
    assert found.error.isna().all()
    assert max(sizes) == 3
    assert spent(found) == pytest.approx(8 * (50 * 2.0 + 5 * 10.0) / 1e6 / 2)


def test_a_budget_that_not_one_row_fits_into_hands_in_nothing(chat: BatchServer) -> None:
    priced()
    found = asked(budget="0.01usd")
    assert found.error.str.contains("the budget of this turn").all()
    assert (chat.batches, spent(found)) == ([], 0)


def test_a_budget_of_rows_cuts_the_batch(chat: BatchServer) -> None:
    found = asked(budget=3)
    assert found.error.isna().sum() == 3
    assert set(found.error.dropna()) == {"not asked: the budget of rows is spent"}
    assert sum(chat.handed_in.values()) == 3


def test_what_is_left_behind_is_counted_once_its_results_are_read(chat: BatchServer) -> None:
    priced()
    engine().settings.change("budget_day", "5usd", "a test")
    left_behind_reserved(chat)
    assert answers(asked()) == [f"yes to {name}" for name in NAMES]
    used = engine()
    counted = used.call(used.runtime.store.count_budget, "day", time.strftime("%Y-%m-%d"), "usd")
    assert counted.reserved == 0


def left_behind_reserved(server: BatchServer) -> None:
    """Stop a map whose batch goes on, as one whose process dies: its reservation stays."""
    waits = threading.Event()
    server.looks = -1
    server.on_call = lambda call: waits.set() if call.startswith("GET") else None
    stopped_once(waits)
    server.on_call, server.looks = (lambda call: None), 1
    assert kept()[0].reservation is not None


def test_a_price_beforehand_is_half_for_a_provider_with_batches(chat: BatchServer) -> None:
    priced()
    whole = mn.map("{value}", NAMES, dry=True, progress=False)
    half = mn.map("{value}", NAMES, dry=True, batch=True, progress=False)
    assert half.most_usd[0] == pytest.approx(whole.most_usd[0] / 2)


def test_how_far_a_batch_is_can_be_seen(chat: BatchServer, capsys: pytest.CaptureFixture[str]) -> None:
    chat.looks = 20
    asked(progress=True)
    assert "batch in_progress, 0 of 8 rows done there" in capsys.readouterr().err


def test_each_partition_of_a_frame_of_dask_is_a_batch_of_its_own(chat: BatchServer) -> None:
    dask = pytest.importorskip("dask.dataframe")
    names = pd.DataFrame({"value": NAMES})
    found = asked(dask.from_pandas(names, npartitions=2)).compute(scheduler="threads")
    assert answers(found) == [f"yes to {name}" for name in NAMES]
    assert sorted(len(batch.requests) for batch in chat.batches) == [4, 4]
    assert chat.single == []
