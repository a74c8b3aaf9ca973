"""Maps whose process is killed, or whose server fails: no row with a stored answer is asked again, and none is missing.

`MENTRA_FAULT_ROWS` is the number of rows (default 200, with two kills; 10000 in the long form, with five).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import pytest
from kits.row_server import Fate, RowServer

import mentra_nb as mn
from mentra_nb.chat import engine
from mentra_nb.rows import pace

ROWS = int(os.environ.get("MENTRA_FAULT_ROWS", "200"))
WORKERS = 16
KILLS = 5 if ROWS > 1000 else 2

pytestmark = [pytest.mark.fault, pytest.mark.timeout(120 + ROWS // 5)]

PROGRAM = """
import sys
import mentra_nb as mn
url, rows, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
mn.connect("lab", url, model="m")
found = mn.map("{value}", [f"row {n}" for n in range(rows)], workers=workers, progress=False)
print(int((found.answer == "yes to " + found.value).sum()))
"""


def stored(home: Path) -> set[str]:
    """The rows whose answers are stored."""
    file = home / "state.sqlite"
    with closing(connect(f"file:{file}?mode=ro", uri=True)) as db:
        return {answer.removeprefix("yes to ") for (answer,) in db.execute("SELECT answer FROM row_answers")}


@pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9")
def test_kills_ask_no_stored_row_again_and_lose_none(tmp_path: Path) -> None:
    chance = random.Random(5)
    environment = {**os.environ, "MENTRA_HOME": str(tmp_path / "home"), "MENTRA_RECORD": str(tmp_path / "record")}
    process: subprocess.Popen[str] | None = None
    left = 0

    def kill_at_last(prompt: str) -> None:
        nonlocal left
        left -= 1
        if left == 0 and process is not None:
            os.kill(process.pid, signal.SIGKILL)

    known = set[str]()
    with RowServer(on_request=kill_at_last) as server:
        for kill in range(KILLS + 1):
            left = chance.randint(1, max(1, ROWS // (KILLS + 1))) if kill < KILLS else 0
            seen = len(server.asked)
            command = [sys.executable, "-c", PROGRAM, server.url, str(ROWS), str(WORKERS)]
            process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
            printed = process.communicate()[0]
            assert process.returncode == (-signal.SIGKILL if kill < KILLS else 0)
            assert not known & set(server.asked[seen:])
            known = stored(tmp_path / "home")
    assert int(printed) == ROWS
    asked = Counter(server.asked)
    assert len(asked) == ROWS
    assert sum(asked.values()) - ROWS <= WORKERS * KILLS


def test_a_server_that_fails_in_every_way_answers_all_rows_within_its_share_of_requests(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pace, "LEAST_PATIENCE", 1.0)
    chance = random.Random(7)
    kinds: list[Fate] = ["refuse", "fail", "break", "silence", "answer"]
    fates = {f"row {n}": chance.choices(kinds, [30, 5, 2, 1, 62])[0] for n in range(ROWS)}
    engine.reset()
    try:
        with RowServer(lambda prompt, attempt: fates[prompt] if attempt == 1 else "answer") as server:
            mn.connect("lab", server.url, model="m")
            found = mn.map("{value}", list(fates), workers=WORKERS, progress=False)
    finally:
        engine.reset()
    assert found.error.dropna().tolist() == []
    assert (found.answer == "yes to " + found.value).all()
    assert len(server.asked) <= 1.6 * ROWS
