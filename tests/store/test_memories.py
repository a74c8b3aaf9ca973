"""Long-term memory: which memories a search finds, and in which order."""

from __future__ import annotations

import time
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mentra_nb.errors import StoreError
from mentra_nb.store.records import MemoryQuery, MemoryRecord
from mentra_nb.store.sql_store import SqlStore
from mentra_nb.store.tables.ranking import MAX_WORDS, score, words_of
from mentra_nb.store.volatile import VolatileStore

pytestmark = pytest.mark.anyio
DAY = 86400.0


def memory(id: str, content: str, *, agent_id: str = "agent-1", age: float = 0.0, **rest: Any) -> MemoryRecord:
    fields = {"kind": "episode", "source": "auto_ingest", "metadata": {"n": ["ä", None]}} | rest
    return MemoryRecord(record_id=id, agent_id=agent_id, content=content, created_at=time.time() - age, **fields)


async def found(store: SqlStore, query: str, limit: int = 10, agent_id: str = "agent-1") -> list[str]:
    return [hit.record_id for hit in await store.search_memories(MemoryQuery((agent_id,), query, limit))]


async def test_a_memory_is_found_by_any_of_its_words_and_comes_back_as_it_was(store: SqlStore) -> None:
    made = memory("a", "The harbour of Kraków, opened in 1901.", source_revision=7)
    await store.save_memories([made, memory("b", "Something else")])
    [hit] = await store.search_memories(MemoryQuery(("agent-1",), "when was the HARBOUR opened?", 5))
    assert MemoryRecord.model_validate(hit.model_dump()) == made
    assert hit.why_retrieved == "matched harbour,opened"
    assert await store.load_memory("agent-1", "a") == made
    assert await store.load_memory("agent-2", "a") is None
    for query in ("1901", "kraków", "harbour-master", 'opened" OR "'):
        assert await found(store, query) == ["a"]


async def test_sqlite_memory_search_is_namespaced_per_agent(store: SqlStore) -> None:
    await store.save_memories([memory("a", "shared word"), memory("a", "shared word", agent_id="agent-2")])
    assert len(await store.search_memories(MemoryQuery(("agent-1",), "shared", 10))) == 1
    assert await store.forget_memories("agent-1", ["a"]) == 1
    assert (await found(store, "shared"), await found(store, "shared", agent_id="agent-2")) == ([], ["a"])
    assert await store.delete_memories("agent-1", ["a"]) == 1
    assert await found(store, "shared", agent_id="agent-2") == ["a"]


@pytest.mark.parametrize("query", ["", "   ", "--- !! ,;", "_ _", "\n", "🙂"])
async def test_fts_query_returns_none_when_input_has_no_searchable_terms(store: SqlStore, query: str) -> None:
    await store.save_memories([memory("a", "word")])
    assert words_of(query) == []
    assert await found(store, query) == []


async def test_sqlite_memory_search_ignores_non_searchable_queries(store: SqlStore) -> None:
    await store.save_memories([memory("a", "word")])
    assert await found(store, "word", limit=0) == []
    assert await found(store, "absent") == []


@pytest.mark.parametrize(
    "query",
    [
        '"word',
        "word*",
        "NEAR(word, 2)",
        "a AND NOT word",
        "{content}: word",
        "word'; --",
        "^word",
        "(word",
        "wo:rd word",
    ],
)
async def test_sqlite_memory_search_sanitizes_punctuation_heavy_queries(store: SqlStore, query: str) -> None:
    await store.save_memories([memory("a", "a word")])
    assert await found(store, query) == ["a"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=st.text(max_size=40), content=st.text(max_size=40))
def test_any_text_can_be_remembered_and_searched_for(query: str, content: str) -> None:
    async def check() -> None:
        store = VolatileStore()
        await store.save_memories([memory("a", content), memory("b", "certainly")])
        hits = await found(store, query)
        assert set(hits) <= {"a", "b"}
        assert "b" in await found(store, f"{query} certainly")
        store.close()

    anyio.run(check)


async def test_a_query_as_long_as_a_conversation_is_searched_by_its_last_words(store: SqlStore) -> None:
    await store.save_memories([memory("first", "alpha"), memory("last", "omega")])
    query = " ".join(["alpha", *(f"word{n}" for n in range(5000)), "omega"])
    assert len(words_of(query)) == MAX_WORDS
    assert await found(store, query) == ["last"]


async def test_pinned_manual_facts_outrank_episodes(store: SqlStore) -> None:
    records = [memory(f"e{n}", "deploy on friday deploy deploy") for n in range(3)]
    pin = memory("pin", "never deploy on a friday", kind="fact", pinned=True, source="manual_pin", age=30 * DAY)
    await store.save_memories([*records, pin, memory("other", "unrelated")])
    hits = await store.search_memories(MemoryQuery(("agent-1",), "deploy", 2))
    assert next(hit.record_id for hit in hits) == "pin"
    assert hits[0].score > hits[1].score
    assert hits[0].why_retrieved == "matched deploy; fact; manual"
    assert len(hits) == 2


async def test_of_equal_texts_the_kind_then_the_age_decides(store: SqlStore) -> None:
    await store.save_memories(
        [
            memory("old", "word", age=100 * DAY),
            memory("new", "word"),
            memory("summary", "word", kind="summary", age=100 * DAY),
            memory("fact", "word", kind="fact", age=100 * DAY),
        ]
    )
    assert await found(store, "word") == ["fact", "summary", "new", "old"]
    assert await found(store, "word", limit=1) == ["fact"]


async def test_a_better_match_of_the_words_ranks_higher(store: SqlStore) -> None:
    others = [memory(f"o{n}", f"filler number {n} about nothing at all") for n in range(20)]
    await store.save_memories([*others, memory("both", "copper kettle"), memory("one", "copper pipes and filler text")])
    assert (await found(store, "copper kettle"))[:2] == ["both", "one"]


async def test_of_many_matches_the_best_one_is_among_those_that_are_ranked(store: SqlStore) -> None:
    best = memory("best", "kettle kettle kettle", age=400 * DAY)
    await store.save_memories([best, *(memory(f"o{n}", f"a kettle in a long list, number {n}") for n in range(80))])
    assert await found(store, "kettle", limit=1) == ["best"]


def test_the_score_grows_with_the_match_and_is_bounded() -> None:
    points = [score(relevance, 10, "episode", pinned=False, age=0) for relevance in (0, 0.1, 1, 5, 10)]
    assert points == sorted(points)
    assert (points[0], points[-1]) == (0.5, 8.5)
    assert score(1, 2, "fact", pinned=True, age=0) == 4 + 3 + 2 + 0.5
    assert score(1, 2, "summary", pinned=False, age=DAY) == 4 + 1.5 + 0.25


async def test_tombstoned_records_are_excluded_from_reads(store: SqlStore) -> None:
    made = memory("a", "word")
    await store.save_memories([made, memory("b", "word")])
    assert await store.forget_memories("agent-1", ["a", "nothing"]) == 1
    assert await store.forget_memories("agent-1", ["a"]) == 0
    assert await store.forget_memories("agent-1", []) == 0
    assert (await found(store, "word"), await store.load_memory("agent-1", "a")) == (["b"], None)
    await store.save_memories([made])
    assert set(await found(store, "word")) == {"a", "b"}


async def test_a_memory_that_is_replaced_is_found_by_its_new_words_only(store: SqlStore) -> None:
    await store.save_memories([memory("a", "before")])
    await store.save_memories([memory("a", "after", pinned=True)])
    assert (await found(store, "before"), await found(store, "after")) == ([], ["a"])
    loaded = await store.load_memory("agent-1", "a")
    assert loaded is not None
    assert loaded.pinned is True


async def test_deleted_memories_are_not_found(store: SqlStore) -> None:
    await store.save_memories([memory("a", "word"), memory("b", "word")])
    await store.forget_memories("agent-1", ["b"])
    assert await store.delete_memories("agent-1", ["a", "b", "c"]) == 2
    assert await found(store, "word") == []


async def test_each_agent_has_its_cursor(store: SqlStore) -> None:
    assert await store.load_memory_cursor("agent-1") is None
    await store.save_memory_cursor("agent-1", 3)
    await store.save_memory_cursor("agent-1", 5)
    await store.save_memory_cursor("agent-2", 1)
    assert await store.load_memory_cursor("agent-1") == 5


async def test_a_search_takes_several_owners_and_no_others(store: SqlStore) -> None:
    owners = ["agent-1", "project:/home/a b/ö", "global", "agent-2"]
    await store.save_memories([memory(f"m{n}", "shared word", agent_id=owner) for n, owner in enumerate(owners)])
    hits = await store.search_memories(MemoryQuery(tuple(owners[:3]), "shared", 10))
    assert {hit.agent_id for hit in hits} == set(owners[:3])
    assert [hit.record_id for hit in await store.search_memories(MemoryQuery((), "shared", 10))] == []
    assert {each.agent_id for each in await store.list_memories(owners[1:3])} == set(owners[1:3])
    assert await store.list_memories([]) == []


async def test_memories_are_listed_newest_first_without_forgotten_ones(store: SqlStore) -> None:
    await store.save_memories([memory(f"m{n}", "word", age=n * DAY, run_id=f"run-{n}", cell_id="c") for n in (2, 0, 1)])
    await store.forget_memories("agent-1", ["m1"])
    listed = await store.list_memories(["agent-1"])
    assert [(each.record_id, each.run_id, each.cell_id) for each in listed] == [
        ("m0", "run-0", "c"),
        ("m2", "run-2", "c"),
    ]


async def test_what_is_forgotten_is_erased_and_not_added_again(store: SqlStore) -> None:
    made = memory("a", "the password is swordfish")
    assert await store.add_memories([made, memory("b", "word")]) == 2
    await store.forget_memories("agent-1", ["a"])
    statement = "SELECT content, metadata FROM memories WHERE record_id = 'a'"
    assert dict(await store.read(lambda db: db.execute(statement).fetchone())) == {"content": "", "metadata": "{}"}
    assert await store.add_memories([made, memory("c", "swordfish")]) == 1
    assert await found(store, "swordfish") == ["c"]


async def test_episodes_that_an_agent_has_before_it_are_left_out_for_it(store: SqlStore) -> None:
    made = [memory(f"e{n}", "kettle", agent_id="project:/p", made_by="agent-1", source_revision=n) for n in (2, 4)]
    fact = memory("f", "kettle", agent_id="project:/p", made_by="agent-1", source_revision=4, kind="fact")
    other = memory("o", "kettle", agent_id="project:/p", made_by="agent-2", source_revision=4)
    old = memory("n", "kettle", agent_id="project:/p", source_revision=4)
    await store.save_memories([*made, fact, other, old])
    query = MemoryQuery(("project:/p",), "kettle", 10)
    assert {hit.record_id for hit in await store.search_memories(query)} == {"e2", "e4", "f", "o", "n"}
    seen = await store.search_memories(query._replace(seen_by="agent-1", seen_from=2))
    assert {hit.record_id for hit in seen} == {"e2", "f", "o", "n"}


async def test_a_search_ends_when_its_time_is_over_and_the_store_goes_on(store: SqlStore) -> None:
    await store.save_memories([memory(f"m{n}", f"word number {n} " + "and more " * 50) for n in range(400)])
    with pytest.raises(StoreError, match="timed out after 1e-09 s"):
        await store.search_memories(MemoryQuery(("agent-1",), "word number more", 5, seconds=1e-9))
    assert len(await found(store, "word", limit=5)) == 5


async def test_a_few_memories_are_found_among_many_of_others_by_a_word_that_is_everywhere(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mentra_nb.store.sqlite.MATCHES", 20)
    await store.save_memories([memory("mine", "deploy carefully", agent_id="agent-2"), memory("too", "deploy friday")])
    await store.save_memories([memory(f"m{n}", f"deploy the service {n}") for n in range(100)])
    assert await found(store, "deploy on a friday", agent_id="agent-2") == ["mine"]
    assert "too" in await found(store, "deploy on a friday")
