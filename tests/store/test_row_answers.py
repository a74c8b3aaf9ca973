"""The store keeps the answers of rows by digest, and forgets them by prompt and model."""

from __future__ import annotations

import pytest

from mentra_nb.store.row_answers import RowAnswer, RowBatch
from mentra_nb.store.sql_store import SqlStore

pytestmark = pytest.mark.anyio


def answer(digest: str, text: str = "yes", prompt: str = "p", model: str = "a/b") -> RowAnswer:
    return RowAnswer(digest, prompt, model, text, 1.0)


async def test_answers_are_found_by_digest_and_replaced_by_newer_ones(store: SqlStore) -> None:
    await store.save_row_answers([answer("1"), answer("2", "ä")])
    await store.save_row_answers([answer("1", "no")])
    assert await store.load_row_answers(["1", "2", "3"]) == {"1": "no", "2": "ä"}
    assert await store.load_row_answers([]) == {}


async def test_more_digests_than_one_statement_takes_are_all_found(store: SqlStore) -> None:
    digests = [str(number) for number in range(1_201)]
    await store.save_row_answers([answer(each) for each in digests])
    assert await store.load_row_answers([*digests, "none"]) == dict.fromkeys(digests, "yes")


async def test_answers_are_forgotten_by_prompt_and_model(store: SqlStore) -> None:
    await store.save_row_answers([answer("1"), answer("2", prompt="q"), answer("3", model="a/c"), answer("4")])
    assert await store.forget_row_answers("p", "a/b") == 2
    assert await store.forget_row_answers("p") == 1
    assert await store.forget_row_answers() == 1
    assert await store.load_row_answers(["1", "2", "3", "4"]) == {}


async def test_an_answer_longer_than_a_brief_transaction_is_stored(store: SqlStore) -> None:
    await store.save_row_answers([answer("1", "x" * 200_000)])
    assert len((await store.load_row_answers(["1"]))["1"]) == 200_000


async def test_batches_under_way_are_kept_by_model_until_they_are_deleted(store: SqlStore) -> None:
    first, other = RowBatch("k1", "a/b", ["1", "2"], 1.0), RowBatch("k2", "a/c", ["3"], 2.0)
    later = RowBatch("k0", "a/b", ["4"], 3.0, reservation="r")
    for each in (later, first, other):
        await store.save_row_batch(each)
    assert await store.load_row_batches("a/b") == [first, later]
    await store.save_row_batch(first._replace(provider_batch="batch_1"))
    assert (await store.load_row_batches("a/b"))[0].provider_batch == "batch_1"
    await store.delete_row_batch("k1")
    assert await store.load_row_batches("a/b") == [later]
