"""Maps on a Dask cluster of two processes, and over frames of Dask."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from sqlite3 import connect
from typing import Any, Literal, TypedDict

import pandas as pd
import pytest
from kits.row_server import HOLD_SECONDS, RowServer

import mentra_nb as mn
from mentra_nb.chat import engine
from mentra_nb.errors import ConfigurationError
from mentra_nb.event.types import TurnOrigin
from mentra_nb.rows.cluster import stop_everywhere
from mentra_nb.rows.dask import ClusterJob
from mentra_nb.rows.job import Order

dd: Any = pytest.importorskip("dask.dataframe")

ROWS = int(os.environ.get("MENTRA_FAULT_ROWS", "400"))
KEY = "key-that-stays-in-the-environment"
QUIET: dict[str, Any] = {"progress": False}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300 + ROWS // 20),
    pytest.mark.skipif(sys.platform == "win32", reason="workers are killed with kill -9"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RowServer, Any, Path]]:
    """A server, a client of two workers that know it as `lab`, and the home that all share."""
    import dask
    from distributed import Client, LocalCluster

    home = tmp_path_factory.mktemp("cluster")
    with pytest.MonkeyPatch.context() as patch, RowServer() as server:
        config = home / "config.toml"
        config.write_text(f'[providers.lab]\nbase_url = "{server.url}"\nkey_env = "LAB_KEY"\n')
        as_at_home(patch, home)
        local = str(home / "dask")
        with (
            dask.config.set({"distributed.comm.timeouts.connect": "120s", "distributed.dashboard.link": ""}),
            LocalCluster(
                n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=local, silence_logs=50
            ) as cluster,
            Client(cluster) as client,
        ):
            yield server, client, home


def as_at_home(patch: pytest.MonkeyPatch, home: Path) -> None:
    """Set what the workers have in their environment."""
    for name, value in {"MENTRA_HOME": home, "MENTRA_CONFIG": home / "config.toml", "LAB_KEY": KEY}.items():
        patch.setenv(name, str(value))
    for name in ("MENTRA_STATE", "MENTRA_RECORD"):
        patch.delenv(name, raising=False)


@pytest.fixture
def server(place: tuple[RowServer, Any, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[RowServer]:
    server = place[0]
    server.asked.clear()
    engine.reset()
    as_at_home(monkeypatch, place[2])
    yield server
    engine.reset()
    server.fate, server.on_request = lambda prompt, attempt: "answer", lambda prompt: None


@pytest.fixture
def client(place: tuple[RowServer, Any, Path]) -> Any:
    return place[1]


def rows(name: str, number: int = 100) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"{name} {n}" for n in range(number)]}, index=range(5, number + 5))


def ask(data: Any, **how: Any) -> Any:
    return mn.map("{text}", data, **{"model": "lab/m", **QUIET, **how})


def stored(home: Path, name: str) -> set[str]:
    with closing(connect(f"file:{home / 'state.sqlite'}?mode=ro", uri=True)) as db:
        answers = {answer.removeprefix("yes to ") for (answer,) in db.execute("SELECT answer FROM row_answers")}
    return {answer for answer in answers if answer.startswith(f"{name} ")}


def test_rows_are_asked_on_workers_with_the_key_of_their_environment(server: RowServer, client: Any) -> None:
    frame = rows("plain")
    twice = pd.concat([frame, frame])
    found = ask(twice, client=client)
    assert found.index.tolist() == twice.index.tolist()
    assert (found.answer == "yes to " + found.text).all()
    assert found.error.isna().all()
    assert Counter(server.asked) == Counter(frame.text)
    assert server.keys == {KEY}
    assert client.nthreads()
    turn = mn.turns().set_index("run_id").loc[found.attrs["map"]]
    assert turn.answer.startswith("200 of 200 rows answered; 100 of them without a request; 100 requests")
    assert mn.usage(by="map").set_index("map_id").responses[found.attrs["map"]] == 100
    ask(twice, client=client)
    assert len(server.asked) == 100


def test_a_worker_that_is_killed_loses_no_row_and_asks_no_stored_one_again(
    server: RowServer, client: Any, place: tuple[RowServer, Any, Path]
) -> None:
    pids, known = list(client.run(os.getpid).values()), set[str]()
    killed = threading.Event()

    def kill(prompt: str) -> None:
        if len(server.asked) == ROWS // 2:
            os.kill(pids[0], signal.SIGKILL)
            known.update(stored(place[2], "killed"))
            known.difference_update(server.asked[-64:])  # may have been stored after it was asked again
            killed.set()

    server.on_request = kill
    found = ask(rows("killed", ROWS), client=client, workers=8)
    assert killed.is_set()
    assert (found.answer == "yes to " + found.text).all()
    asked = Counter(server.asked)
    assert len(asked) == ROWS
    assert sum(asked.values()) - ROWS <= 8
    assert known
    assert not {row for row in known if asked[row] > 1}


class Verdict(TypedDict):
    kind: Literal["good", "bad"]
    at: datetime | None
    score: int


def test_a_frame_of_dask_stays_lazy_and_knows_its_columns(server: RowServer, client: Any) -> None:
    lazy = ask(dd.from_pandas(rows("lazy"), npartitions=4))
    assert (server.asked, lazy.npartitions, list(lazy.columns)) == ([], 4, ["text", "answer", "error"])
    graph = pickle.dumps(dict(lazy.optimize().dask))
    assert b"lab/m" in graph
    assert KEY.encode() not in graph
    assert lazy.answer.str.len().sum().compute() > 0
    found = lazy.compute()
    assert (found.answer == "yes to " + found.text).all()
    assert found.index.tolist() == list(range(5, 105))
    assert Counter(server.asked) == Counter(found.text)


@pytest.mark.parametrize("as_", [str, bool, int, float, datetime, Literal["a", "b"], list[int], Verdict], ids=str)
def test_the_types_of_a_lazy_frame_are_those_of_its_partitions(server: RowServer, client: Any, as_: Any) -> None:
    frame = dd.from_pandas(rows(f"types {as_}", 4), npartitions=2)
    frame = frame[frame.text.str.contains("0|1")]  # the second partition is empty
    lazy = ask(frame, as_=as_, retries=0)
    found = lazy.compute(scheduler="sync")
    assert lazy.dtypes.to_dict() == found.dtypes.to_dict()
    assert len(found) == 2


def test_a_series_of_dask_and_a_lazy_frame_on_a_client(server: RowServer, client: Any) -> None:
    series = dd.from_pandas(rows("series", 6).text, npartitions=2)
    found = ask(series, client=client).compute()
    assert found.answer.tolist() == [f"yes to series {n}" for n in range(6)]


def test_a_budget_of_rows_or_tokens_is_that_of_all_workers(server: RowServer, client: Any) -> None:
    found = ask(rows("budget"), client=client, budget=17, workers=4)
    assert len(server.asked) == found.answer.notna().sum() == 17
    assert found.error.dropna().unique().tolist() == ["not asked: the budget of rows is spent"]
    server.asked.clear()
    lazy = ask(dd.from_pandas(rows("tokens"), npartitions=8), budget="40k", workers=4)
    found = lazy.compute()
    assert 0 < len(server.asked) < 100
    assert 55 * len(server.asked) <= 40_000
    assert found.error.dropna().str.contains("the budget of this turn, 40,000 tokens").all()


def test_a_budget_is_refused_where_workers_have_another_state_store(
    server: RowServer, client: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MENTRA_HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match="another state store"):
        ask(rows("elsewhere", 4), client=client, budget="1M")
    assert server.asked == []


def test_a_refusal_at_one_worker_holds_the_other_back(server: RowServer, client: Any) -> None:
    job, came, quiet = order(rows("pace", 4_000), client), list[float](), list[int]()

    def fate(prompt: str, attempt: int) -> Any:
        came.append(time.monotonic())
        if len(came) > 40 and came[-1] - came[-2] > 0.8 * HOLD_SECONDS and not quiet:
            quiet.append(len(came))
            stop(job, client)
        return "hold" if len(came) == 40 else "answer"

    server.fate = fate
    finished(job)
    assert quiet
    assert quiet[0] < 1_000  # alone, the other worker would have gone on


def test_stop_returns_the_rows_that_are_done(server: RowServer, client: Any) -> None:
    job = order(rows("stop", 5_000), client)
    server.on_request = lambda prompt: stop(job, client) if len(server.asked) == 30 else None
    found = finished(job)
    assert 0 < found.answer.notna().sum() < 5_000
    assert found.error.dropna().unique().tolist() == ["not asked: the map was stopped"]


def order(data: Any, client: Any) -> ClusterJob:
    return ClusterJob(Order("{text}", data, model="lab/m", client=client, workers=2))


def finished(job: ClusterJob) -> Any:
    job.start(engine.engine(), TurnOrigin())
    return job.result(job.future.result())


def stop(job: ClusterJob, client: Any) -> None:
    """Stop it, without blocking the server's thread that calls this."""
    threading.Thread(target=stop_everywhere, args=(client, job.id)).start()


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"client": "tcp://127.0.0.1:8786"}, "client must be a distributed.Client, not str"),
        ({"prompt": "{missing}"}, "names a column 'missing' that is not there"),
        ({"dry": True}, "dry=True needs rows"),
        ({"into": "text"}, "has a column 'text' already"),
        ({"model": "nobody/m"}, "there is no provider 'nobody'"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence_before_any_request(server: RowServer, how: Any, why: str) -> None:
    data = rows("wrong", 4) if "client" in how else dd.from_pandas(rows("wrong", 4), npartitions=2)
    with pytest.raises(ConfigurationError, match=why):
        mn.map(how.pop("prompt", "{text}"), data, **{"model": "lab/m", **QUIET, **how})
    assert server.asked == []


def test_a_server_that_only_this_process_knows_is_refused(server: RowServer, client: Any) -> None:
    mn.connect("mine", server.url, model="m")
    with pytest.raises(ConfigurationError, match=r"workers of a cluster do not know 'mine'.*\[providers.mine\]"):
        ask(rows("mine", 4), client=client, model="mine/m")
