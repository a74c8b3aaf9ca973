"""Hostile commands behind the fence: nothing outside is read, changed, reached or signalled.

`MENTRA_FAULT_EFFECTS` has all of them tried.
"""

from __future__ import annotations

import os
from pathlib import Path

import pyseccomp
import pytest
from kits.fences import ENV, fenced, needs_fence
from kits.hostile import attacks, world

from mentra_nb.sandbox.fenced import FencedRun
from mentra_nb.sandbox.syscalls import REFUSED

pytestmark = pytest.mark.slow

LONG = "MENTRA_FAULT_EFFECTS" in os.environ
"""Whether all are tried, and with more patience."""
TO_FILES = 567
BATCH = 90
MARK = "=====attack"


def _numbers() -> dict[str, int]:
    found = {}
    for name in (*REFUSED, "clone3"):
        try:
            number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
        except ValueError:
            continue
        if number >= 0:
            found[name] = number
    return found


def _problems(run: FencedRun, token: str, batch: list[str]) -> list[str]:
    """Return the commands whose output has something it may not have."""
    found = []
    for said in f"{run.output.stdout}\n{run.output.stderr}".split(MARK)[1:]:
        number, _, text = said.partition("\n")
        lines = text.splitlines()
        families = {line.split()[1] for line in lines if line.startswith("FAMILY")}
        bad = [line for line in lines if token in line or line.startswith(("WRITTEN", "CALLED"))]
        if bad or not families <= {"1", "2", "10"}:
            found.append(f"{batch[int(number)]}: {bad or families}")
    return found


def test_no_hostile_command_gets_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_fence()
    with world(tmp_path) as around:
        monkeypatch.setenv("MENTRA_HOME", str(around.ours))
        monkeypatch.setenv("SECRET_API_KEY", around.token)
        monkeypatch.setattr("mentra_nb.sandbox.fenced.Path.home", lambda: around.home)
        hostile = attacks(around, _numbers())
        assert len(hostile) >= 600
        if not LONG:  # the first ones are the ways to each file, with each thing to do to it
            hostile = hostile[:TO_FILES:7] + hostile[TO_FILES:]
        problems = []
        for first in range(0, len(hostile), BATCH):
            batch = hostile[first : first + BATCH]
            script = "\n".join(
                f"echo '{MARK}{n}'; echo '{MARK}{n}' >&2; (mkdir -p t; {line}) </dev/null"
                for n, line in enumerate(batch)
            )
            env = ENV | {"HOME": str(around.home)}
            with fenced(script, around.workspace, env=env, timeout=60.0, max_output_bytes_per_stream=4 << 20) as run:
                assert f"{MARK}{len(batch) - 1}\n" in run.output.stdout, "it did not come to its end"
                problems += _problems(run, around.token, batch)
                for file in (run.folder / "content").iterdir():
                    if around.token.encode() in file.read_bytes():
                        problems.append(f"batch {first}: what is private is in its effect")
            problems += [f"batch {first}: {harm}" for harm in around.harm()]
        assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    "command",
    [
        "kill -9 -1",
        "kill -STOP -1; kill -9 1; kill -TERM 1",
        ":(){ :|:& };:",
        "python3 -c 'import os\nwhile True: os.fork()'",
        "python3 -c 'x = [bytearray(1 << 20) for _ in range(10 ** 6)]'",
        "head -c 2000000000 /dev/zero >/tmp/big; head -c 2000000000 /dev/zero >/dev/shm/big; ls -l /tmp /dev/shm",
        "truncate -s 1T sparse; ls -l sparse; yes >/dev/null & sleep 1; kill %1",
        "d=d; for i in $(seq 400); do mkdir -p $d && cd $d; done; echo deep >file",
    ],
)
def test_a_command_that_takes_all_it_can_harms_nobody(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_fence()
    with world(tmp_path) as around:
        monkeypatch.setenv("MENTRA_HOME", str(around.ours))
        with fenced(command, around.workspace, timeout=10.0 if LONG else 1.5) as run:
            assert run.output.status_code is not None
        assert around.harm() == []
