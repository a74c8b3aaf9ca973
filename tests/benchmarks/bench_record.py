"""The time of queries of the record: `python tests/benchmarks/bench_record.py [EVENTS] [FOLDER]`.

Typical queries, each to a DataFrame, over EVENTS (10 million) events in Parquet segments; the same in SQLite with the
same typed columns and five indexes; and the same in pandas over the journal's lines, of which it keeps the columns it
needs. Times are wall seconds, the median of three. The events are those of `TEMPLATES` turns, made with the real event
classes and given new ids; FOLDER keeps them for the next time.
"""

from __future__ import annotations

import json
import random
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

import mentra_nb as mn
from mentra_nb.authorization import ToolAuthorizationOutcome, ToolAuthorizationPreview
from mentra_nb.content import TokenUsage
from mentra_nb.event import types as e
from mentra_nb.record import schema
from mentra_nb.record.read import plots
from mentra_nb.record.write.files import make_folder

SEGMENT = 250_000
TEMPLATES = 200
TURNS_A_SESSION = 10
SECONDS_A_TURN = 40.0
BEGIN = 1_767_225_600.0  # 2026-01-01
MODELS = [("anthropic", "claude-sonnet-4-5"), ("openai", "gpt-4o"), ("gemini", "gemini-2.5-pro"), ("ollama", "qwen3")]
WORDS = ["the", "sales", "of", "march", "look", "odd", "and", "file", "fails", "with", "an", "error", "again", "disk"]


def text(of: random.Random, words: int) -> str:
    return " ".join(of.choices(WORDS, k=words))


def turn(n: int) -> list[tuple[float, dict[str, Any]]]:
    """Return the events of one turn and the seconds before each. @R, @S, @T stand for run, session and turn."""
    of = random.Random(n)
    provider, model = MODELS[of.choices(range(4), [5, 3, 2, 1])[0]]
    run: dict[str, Any] = {"agent_id": "agent-@S", "run_id": "run-@R"}
    happened: list[tuple[float, e.RuntimeEvent]] = []

    def add(kind: type[e.RuntimeEvent], after: float = 0.001, **fields: Any) -> None:
        happened.append((after, kind(**run, **fields)))

    def ask_model(k: int, stop: str) -> None:
        same = {"request_id": f"req-@R-{k}", "provider": provider, "model": model, "attempt": 1}
        add(e.ModelRequestStarted, **same)
        add(e.ModelRequestFinished, of.uniform(0.3, 1), **same, success=True)
        usage = TokenUsage(input_tokens=of.randint(500, 20_000), output_tokens=of.randint(20, 900))
        add(e.ModelResponseFinished, of.uniform(0.5, 8), **same, success=True, stop_reason=stop, usage=usage)

    def call(k: int) -> None:
        tool, asked = of.choice(["shell", "read", "write", "search"]), of.random() < 0.2
        allowed, subject = not asked or of.random() < 0.8, text(of, 3)
        same = {"tool_name": tool, "tool_call_id": f"call-@R-{k}"}
        preview = ToolAuthorizationPreview(working_directory="/project", raw_input={"command": subject})
        add(e.ToolAuthorizationStarted, **same, preview=preview)
        wait = of.uniform(1, 30) if asked else 0.0
        question = f"perm-@R-{k}" if asked else None
        if asked:
            about = {**same, "request_id": question, "session_id": "session-@S"}
            add(e.QuestionAsked, **about, description="no rule", subject=subject, deadline=2e9)
            outcome = "allowed" if allowed else "denied"
            add(e.QuestionAnswered, wait, **about, outcome=outcome, decided_by="user", waited_ms=int(wait * 1e3))
        decision = ToolAuthorizationOutcome.ALLOW if allowed else ToolAuthorizationOutcome.DENY
        by = "user" if asked else "setting"
        reason = None if allowed else text(of, 4)
        decided = {"outcome": decision, "decided_by": by, "request_id": question, "wait_ms": int(wait * 1e3)}
        add(e.ToolAuthorizationFinished, **same, **decided, reason=reason, subject=subject)
        if not allowed:
            add(e.ToolAuthorizationBlocked, **same, outcome=decision)
            return
        ms, failed = int(of.lognormvariate(5, 1.5)), of.random() < 0.05
        add(e.ToolExecutionStarted, **same, input={"command": subject})
        output = text(of, of.randint(5, 60))
        error = "exit 1" if failed else None
        add(
            e.ToolExecutionFinished,
            ms / 1e3,
            **same,
            is_error=failed,
            error=error,
            output_preview=output,
            duration_ms=ms,
        )

    origin = {"session_id": "session-@S", "cell_id": f"cell-@S-{n % 7}", "execution_count": n % 40}
    place = {"notebook": f"work-{n % 12}.ipynb", "project": f"/project-{n % 5}"}
    add(e.TurnStarted, 20.0, model=model, prompt=f"@T {text(of, 20)}", **origin, **place)
    for k in range(of.choice([0, 0, 1, 1, 2, 3])):
        ask_model(k, "tool_use")
        call(k)
    ask_model(9, "end_turn")
    took = sum(after for after, _ in happened[1:])
    add(e.TurnFinished, stop_reason="end", success=True, duration_ms=int(took * 1e3), **origin)
    return [(after, event.model_dump(mode="json")) for after, event in happened]


def make_record(folder: Path, events: int) -> None:
    """Write Parquet segments of `SEGMENT` events each, about `events` in all."""
    out = make_folder(folder)
    made = [turn(n) for n in range(TEMPLATES)]
    steps = [
        (n, k, sum(after for after, _ in events_[: k + 1]), payload["kind"], json.dumps(payload))
        for n, events_ in enumerate(made)
        for k, (_, payload) in enumerate(events_)
    ]
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    con.execute("CREATE TABLE step (n INT, k INT, after DOUBLE, kind VARCHAR, payload VARCHAR)")
    con.executemany("INSERT INTO step VALUES (?, ?, ?, ?, ?)", steps)
    con.execute("""CREATE MACRO v7(seconds, k, n) AS format('{}-{}-7{:03d}-8000-{:012d}',
        lower(lpad(to_hex((seconds * 1000)::BIGINT), 12, '0'))[:8],
        lower(lpad(to_hex((seconds * 1000)::BIGINT), 12, '0'))[9:], k, n)""")
    turns, a_segment = round(events * TEMPLATES / len(steps)), round(SEGMENT * TEMPLATES / len(steps))
    for number, first in enumerate(range(0, turns, a_segment)):
        begin = BEGIN + first * SECONDS_A_TURN
        (name,) = con.execute("SELECT v7(?, 999, ?)", [begin, number]).fetchone() or ("",)
        lines = f"""
            SELECT v7(moment, k, t)::UUID AS id, moment AS ts, row_number() OVER (ORDER BY t, k) - 1 AS seq,
                '{name}'::UUID AS source, 1::SMALLINT AS v, 'agent-' || session AS scope, kind AS event_type,
                replace(replace(replace(payload, '@R', run), '@S', session), '@T', md5(t::VARCHAR))::JSON AS payload
            FROM (
                SELECT t, s.*, {BEGIN} + t * {SECONDS_A_TURN} + s.after AS moment,
                    v7({BEGIN} + t * {SECONDS_A_TURN}, 0, t) AS run,
                    v7({BEGIN} + t // {TURNS_A_SESSION} * {TURNS_A_SESSION * SECONDS_A_TURN}, 1, t // {TURNS_A_SESSION})
                        AS session
                FROM range({first}, {min(first + a_segment, turns)}) r(t) JOIN step s ON s.n = t * 7919 % {TEMPLATES}
            )"""
        target = schema.quoted(out / f"{name}.parquet")
        con.execute(f"COPY ({schema.TYPED} FROM ({lines}) ORDER BY seq) TO {target} (FORMAT parquet, COMPRESSION zstd)")


# ---- the queries -------------------------------------------------------------------------------------------------

DURING = "ts >= :since AND ts < :until"
CALLS = """(SELECT run_id, call_id, min(tool) AS tool, max(duration_ms) AS ms, min(ts) AS ts,
    max(kind IN ('tool_authorization_blocked', 'tool_execution_blocked')) AS blocked,
    min(CASE WHEN kind = 'tool_execution_finished' THEN success END) AS success,
    max(CASE WHEN kind = 'tool_authorization_finished' THEN outcome END) AS outcome,
    max(CASE WHEN kind = 'tool_authorization_finished' THEN decided_by END) AS decided_by,
    max(CASE WHEN kind = 'tool_authorization_finished' THEN reason END) AS reason, max(subject) AS subject,
    max(wait_ms) / 1000.0 AS wait_s, max(request_id) AS request_id
    FROM events WHERE call_id IS NOT NULL {} GROUP BY run_id, call_id)"""
REQUESTS = """(SELECT request_id, min(run_id) AS run_id, min(model) AS model, max(ts) - min(ts) AS seconds
    FROM events WHERE kind IN ('model_request_started', 'model_request_finished', 'model_response_finished') {}
    GROUP BY request_id)"""
SPENT = """(SELECT e.ts, e.run_id, e.provider, e.model, e.input_tokens + e.output_tokens AS tokens,
    (e.input_tokens * p.input_mtok + e.output_tokens * p.output_mtok) / 1e6 AS cost
    FROM events e LEFT JOIN prices p ON p.provider = e.provider AND p.model = e.model
        AND e.input_tokens > p.above AND e.input_tokens <= p.up_to
    WHERE e.kind = 'model_response_finished' {})"""
OF_RUNS = "AND run_id IN (SELECT run_id FROM events WHERE {} AND run_id IS NOT NULL)"
SESSION_RUNS, WEEK_RUNS = OF_RUNS.format("session_id = :session"), OF_RUNS.format(DURING)
TURNS = f"""SELECT r.*, c.tools, c.denials, c.wait_s, s.tokens, s.cost FROM (
        SELECT run_id, min(ts) AS ts, min(session_id) AS session_id, min(cell_id) AS cell_id, min(model) AS model,
            max(json_extract(payload, '$.prompt')) AS prompt, max(duration_ms) AS ms
        FROM events WHERE kind IN ('turn_started', 'turn_finished') {{}} GROUP BY run_id) r
    LEFT JOIN (SELECT run_id, count(*) AS tools, sum(blocked) AS denials, sum(wait_s) AS wait_s
        FROM {CALLS} GROUP BY run_id) c USING (run_id)
    LEFT JOIN (SELECT run_id, sum(tokens) AS tokens, sum(cost) AS cost FROM {SPENT} GROUP BY run_id) s USING (run_id)
    ORDER BY ts"""
SESSIONS = f"""SELECT r.session_id, min(r.ts), max(r.last), count(*), sum(c.tools), sum(c.denials), sum(c.wait_s),
        sum(c.tool_s), sum(s.tokens), sum(s.cost), sum(m.seconds) FROM (
        SELECT session_id, run_id, min(ts) AS ts, max(ts) AS last FROM events WHERE session_id IS NOT NULL {{}}
        GROUP BY session_id, run_id) r
    LEFT JOIN (SELECT run_id, count(*) AS tools, sum(blocked) AS denials, sum(wait_s) AS wait_s, sum(ms) / 1e3 AS tool_s
        FROM {CALLS} GROUP BY run_id) c USING (run_id)
    LEFT JOIN (SELECT run_id, sum(tokens) AS tokens, sum(cost) AS cost FROM {SPENT} GROUP BY run_id) s USING (run_id)
    LEFT JOIN (SELECT run_id, sum(seconds) AS seconds FROM {REQUESTS} GROUP BY run_id) m USING (run_id)
    GROUP BY r.session_id"""


def questions(folder: Path, session: str, since: datetime, until: datetime) -> dict[str, Callable[[], pd.DataFrame]]:
    here: dict[str, Any] = {"folder": folder}
    week = {**here, "since": since, "until": until}
    return {
        "events of a session": lambda: mn.events(session=session, **here),
        "sessions of a week": lambda: mn.sessions(**week),
        "turns of a session": lambda: mn.turns(session=session, **here),
        "turns of a week": lambda: mn.turns(**week),
        "model_calls: seconds by model": lambda: mn.sql(
            "SELECT model, count(*), median(seconds), sum(seconds) FROM model_calls GROUP BY model", **here
        ),
        "tool_calls: slowest tools": lambda: mn.slowest_tools(**here),
        "tool_calls of a week": lambda: mn.tool_calls(**week),
        "decisions: by tool and answer": lambda: plots.plot.approvals.frame(**here),
        "decisions: denials of a week": lambda: mn.decisions(outcome="deny", **week),
        "usage by model": lambda: mn.usage("model", **here),
        "usage by day and model": lambda: mn.usage(["day", "model"], **here),
        "all sessions": lambda: mn.sessions(**here),
    }


IN_SQLITE = {
    "events of a session": f"SELECT * FROM events WHERE true {SESSION_RUNS} ORDER BY ts",
    "sessions of a week": SESSIONS.format(
        *[
            OF_RUNS.format(f"""session_id IN
        (SELECT session_id FROM events WHERE {DURING} AND session_id IS NOT NULL)""")
        ]
        * 4
    ),
    "turns of a session": TURNS.format(*[SESSION_RUNS] * 3),
    "turns of a week": TURNS.format(*[WEEK_RUNS] * 3),
    "model_calls: seconds by model": f"SELECT model, count(*), avg(seconds) FROM {REQUESTS} GROUP BY model",
    "tool_calls: slowest tools": f"SELECT tool, count(ms), avg(ms), max(ms), sum(ms) FROM {CALLS} GROUP BY tool",
    "tool_calls of a week": f"SELECT * FROM {CALLS.format(WEEK_RUNS)} WHERE {DURING} ORDER BY ts",
    "decisions: by tool and answer": f"SELECT tool, outcome, decided_by, count(*) FROM {CALLS} GROUP BY 1, 2, 3",
    "decisions: denials of a week": f"SELECT * FROM {CALLS.format(WEEK_RUNS)} WHERE {DURING} AND outcome = 'deny'",
    "usage by model": f"SELECT provider, model, count(*), sum(tokens), sum(cost) FROM {SPENT} GROUP BY 1, 2",
    "usage by day and model": f"""SELECT date(ts, 'unixepoch'), provider, model, count(*), sum(tokens), sum(cost)
        FROM {SPENT} GROUP BY 1, 2, 3""",
    "all sessions": SESSIONS,
}
"""The same queries. SQLite has no median and no quantiles, so they use means."""


def sqlite_of(folder: Path, file: Path) -> sqlite3.Connection:
    """Return a SQLite database of the events with their typed columns, the prices, and five indexes."""
    if file.exists():
        return sqlite3.connect(file)
    con, record = sqlite3.connect(file), duckdb.connect()
    con.execute("PRAGMA journal_mode = off")
    con.execute("PRAGMA synchronous = off")
    for name, columns, source in (
        ("events", "* REPLACE (id::VARCHAR AS id, source::VARCHAR AS source, epoch(ts) AS ts)", "events/*.parquet"),
        ("prices", "provider, model, above, up_to, input_mtok, output_mtok", "prices.parquet"),
    ):
        rows = record.execute(f"SELECT {columns} FROM read_parquet({schema.quoted(folder / source)})")
        names = [column[0] for column in rows.description or ()]
        con.execute(f"CREATE TABLE {name} ({', '.join(names)})")
        while batch := rows.fetchmany(50_000):
            con.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(names))})", batch)
    for column in ("kind", "ts", "session_id", "run_id", "call_id"):
        con.execute(f"CREATE INDEX by_{column} ON events ({column}{', ts' if column == 'kind' else ''})")
    con.execute("ANALYZE")
    con.commit()
    return con


FEW = ["event_type", "tool_name", "outcome", "decided_by", "provider", "model"]
KEPT = ["run_id", "session_id", "cell_id", "request_id", "tool_call_id", "tool_name", "provider", "model", "outcome"]
KEPT += ["decided_by", "reason", "wait_ms", "subject", "is_error", "duration_ms", "prompt"]
KEPT += ["usage.input_tokens", "usage.output_tokens"]


def in_pandas(frame: pd.DataFrame, session: str, since: float, until: float) -> dict[str, Callable[[], pd.DataFrame]]:
    """Return the same queries in pandas, without costs."""
    week = frame[(frame.ts >= since) & (frame.ts < until)]

    def calls(of: pd.DataFrame) -> pd.DataFrame:
        of = of[of.tool_call_id.notna()]
        decided, ran = (
            of[of.event_type == kind] for kind in ("tool_authorization_finished", "tool_execution_finished")
        )
        keys = ["run_id", "tool_call_id"]
        every = of.groupby(keys, sort=False).agg(ts=("ts", "min"), tool=("tool_name", "first")).reset_index()
        return every.merge(
            decided[[*keys, "outcome", "decided_by", "reason", "wait_ms", "subject"]], "left", keys
        ).merge(ran[[*keys, "is_error", "duration_ms"]], "left", keys)

    def requests(of: pd.DataFrame) -> pd.DataFrame:
        asked = of[of.event_type.str.startswith("model_")].groupby("request_id", sort=False)
        return asked.agg(run_id=("run_id", "first"), model=("model", "first"), first=("ts", "min"), last=("ts", "max"))

    def spent(of: pd.DataFrame) -> pd.DataFrame:
        found = of[of.event_type == "model_response_finished"]
        return found.assign(tokens=found["usage.input_tokens"] + found["usage.output_tokens"])

    def turns(of: pd.DataFrame) -> pd.DataFrame:
        began, ended = (of[of.event_type == kind] for kind in ("turn_started", "turn_finished"))
        made = calls(of).groupby("run_id").agg(tools=("tool", "size"), wait=("wait_ms", "sum"))
        tokens = spent(of).groupby("run_id").tokens.sum()
        kept = began[["ts", "run_id", "session_id", "cell_id", "model", "prompt"]]
        return kept.merge(ended[["run_id", "duration_ms"]], "left").join(made, "run_id").join(tokens, "run_id")

    def of_runs(where: pd.Series[bool]) -> pd.DataFrame:
        return frame[frame.run_id.isin(frame.run_id[where].unique())]

    def sessions(of: pd.DataFrame) -> pd.DataFrame:
        asked = requests(of)
        seconds = (asked["last"] - asked["first"]).groupby(asked.run_id).sum().rename("model_s")
        numbers = ["tools", "wait", "tokens", "model_s"]
        return turns(of).join(seconds, "run_id").groupby("session_id")[numbers].sum()

    def by_model() -> pd.DataFrame:
        asked = requests(frame)
        return (asked["last"] - asked["first"]).groupby(asked.model).agg(["size", "median", "sum"])

    def by_day() -> pd.DataFrame:
        found = spent(frame)
        return found.groupby([pd.to_datetime(found.ts, unit="s").dt.date, "provider", "model"]).tokens.sum().to_frame()

    in_week = (frame.ts >= since) & (frame.ts < until)
    return {
        "events of a session": lambda: of_runs(frame.session_id == session),
        "sessions of a week": lambda: sessions(of_runs(frame.session_id.isin(week.session_id.dropna().unique()))),
        "turns of a session": lambda: turns(of_runs(frame.session_id == session)),
        "turns of a week": lambda: turns(of_runs(in_week)),
        "model_calls: seconds by model": by_model,
        "tool_calls: slowest tools": lambda: calls(frame).groupby("tool").duration_ms.describe(),
        "tool_calls of a week": lambda: calls(of_runs(in_week)),
        "decisions: by tool and answer": lambda: (
            calls(frame).groupby(["tool", "outcome", "decided_by"]).size().to_frame()
        ),
        "decisions: denials of a week": lambda: calls(of_runs(in_week)).query("outcome == 'deny'"),
        "usage by model": lambda: spent(frame).groupby(["provider", "model"]).tokens.sum().to_frame(),
        "usage by day and model": by_day,
        "all sessions": lambda: sessions(frame),
    }


def lines_of(folder: Path, to: Path) -> None:
    """Write the events as lines of text, as the journal does."""
    record = duckdb.connect()
    source = schema.quoted(folder / "events/*.parquet")
    record.execute(f"""COPY (SELECT id, epoch(ts) AS ts, seq, source, v, scope, kind AS event_type, payload
        FROM read_parquet({source})) TO {schema.quoted(to)} (FORMAT json)""")


def read_lines(file: Path) -> pd.DataFrame:
    """Read JSON lines in pandas: spread the payload, and keep the columns that the queries need.

    Columns of few values are categories: as text ten million lines would not fit into memory twice.
    """
    parts = []
    for part in pd.read_json(file, lines=True, chunksize=100_000):
        payload = pd.json_normalize(part.payload.tolist()).reindex(columns=KEPT)
        parts.append(pd.concat([part[["ts", "event_type"]].reset_index(drop=True), payload], axis=1))
    whole = {}
    for name in parts[0]:  # column by column, to save memory
        column = pd.concat([part.pop(name) for part in parts], ignore_index=True)
        whole[name] = column.astype("category") if name in FEW else column
    return pd.DataFrame(whole, copy=False)


def seconds(ask: Callable[[], object]) -> float:
    """Return the median of three runs, or the time of one run if it takes over a minute."""
    took: list[float] = []
    while len(took) < 3 and not (took and took[0] > 60):
        began = time.perf_counter()
        ask()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def pace() -> str:
    """Return how long a sum of 30 million numbers takes now, since the speed of shared machines varies."""
    took = seconds(lambda: sum(range(30_000_000)))
    return f"{took:.2f} s"


def asked_of(folder: Path) -> tuple[str, datetime, datetime]:
    """Return a session in the middle of the record, and the week that begins with it."""
    middle = mn.sql(
        "SELECT session_id, ts FROM events WHERE ts >= (SELECT min(ts) + (max(ts) - min(ts)) / 2 FROM events) "
        "AND session_id IS NOT NULL ORDER BY ts LIMIT 1",
        folder=folder,
    )
    begin = middle.ts[0].to_pydatetime()
    return str(middle.session_id[0]), begin, begin + timedelta(days=7)


def measure(folder: Path) -> dict[str, float]:
    return {name: seconds(ask) for name, ask in questions(folder, *asked_of(folder)).items()}


def main(events: int, folder: Path) -> None:
    record = folder / f"{events}"
    if not (record / "events").exists():
        began = time.perf_counter()
        made = record.with_suffix(".new")
        make_record(made, events)
        made.rename(record)
        print(f"{events:,} events made in {time.perf_counter() - began:.0f} s", flush=True)
    before = pace()
    ours = measure(record)
    print(f"a sum of 30 million numbers takes {before} before the record is asked, and {pace()} after", flush=True)

    session, since, until = asked_of(record)
    began = time.perf_counter()
    sqlite = sqlite_of(record, folder / f"{events}.sqlite")
    print(f"SQLite loaded in {time.perf_counter() - began:.0f} s", flush=True)
    values = {"session": session, "since": since.timestamp(), "until": until.timestamp()}
    theirs = {}
    for name, text_ in IN_SQLITE.items():
        text_ = text_.format(*[""] * 4)
        theirs[name] = seconds(lambda text_=text_: pd.read_sql_query(text_, sqlite, params=values))

    lines = folder / f"{events}.jsonl"
    if not lines.exists():
        lines_of(record, lines)
    began = time.perf_counter()
    frame = read_lines(lines)
    loading, memory = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    in_memory = in_pandas(frame, session, since.timestamp(), until.timestamp())
    pandas = {name: seconds(ask) for name, ask in in_memory.items()}

    print(f"\nseconds, of {events:,} events{'':13}mn      SQLite   ratio      pandas   ratio   with loading")
    for name, took in ours.items():
        print(
            f"{name:34}{took:10.2f}{theirs[name]:12.2f}{theirs[name] / took:7.1f}x"
            f"{pandas[name]:12.2f}{pandas[name] / took:7.1f}x{(pandas[name] + loading) / took:14.0f}x"
        )
    print(f"\npandas reads the lines in {loading:.0f} s; this process came to {memory:.1f} GB")
    print(f"DuckDB {duckdb.__version__}, SQLite {sqlite3.sqlite_version}, pandas {pd.__version__}")


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    if len(sys.argv) > 2:
        main(count, Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(count, Path(temporary))
