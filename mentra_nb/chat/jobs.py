"""The background commands and turns of this process, for a person: a table of them, and stopping."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from mentra_nb.arguments import check_text
from mentra_nb.background.jobs import output_of, shortened
from mentra_nb.chat.engine import Engine, engine
from mentra_nb.chat.turn import RunningTurn
from mentra_nb.errors import OperationDenied
from mentra_nb.store.records import BackgroundJob
from mentra_nb.words import counted

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("status", "command", "cwd", "conversation", "started_at", "seconds", "output", "output_path", "id")
WHY_EMPTY = "No command has been run in the background here."
SO_FAR = 4096
"""Bytes that are read of the output of a command that runs."""
BY_PERSON = "stopped by the user"


def jobs() -> pd.DataFrame:
    """Return the background commands of the conversations of this process, in the order they started.

    After them come the turns that go on in the background now; their command is the prompt, or what began them.

    Columns: status (`running`, `finished`, `failed`, `interrupted`), command, cwd, conversation (str), started_at
    (datetime, UTC), seconds (float), output (str, its beginning and end), output_path (str, the file with all of it),
    id (str, as the model knows it).

    Example:
        >>> len(mn.jobs())
        0
    """
    import pandas as pd

    from mentra_nb.record.empty import or_why

    used, now = engine(), time.time()
    found, names = _found(used), {}
    if found:
        for session in used.call(used.runtime.store.list_sessions):
            names[session.agent_id] = session.given_name or "this notebook"
    rows = [_row(job, names.get(job.agent_id, ""), now) for job in found]
    rows += [_turn_row(id, turn, now) for id, turn in _turns(used).items()]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame["started_at"] = pd.to_datetime(frame["started_at"], unit="s", utc=True).dt.as_unit("us")
    return or_why(frame, WHY_EMPTY)


def stop_job(job: str | int) -> str:
    """Stop a background command with all its processes, or a turn in the background; return its command or prompt.

    Args:
        job: Its number in `jobs()` counted from 1, or its id.

    Raises:
        OperationDenied: There is no such job, more than one, or it has ended.

    Example:
        >>> mn.stop_job("bg-1")
        Traceback (most recent call last):
        ...
        mentra_nb.errors.OperationDenied: there is no background command 'bg-1': mn.jobs() lists them
    """
    if isinstance(job, str):
        check_text("mn.stop_job('bg-1')", job=job)
    used = engine()
    known, turns = _found(used), _turns(used)
    place = int(job) - len(known) if str(job).isdecimal() else 0
    if (turn := turns.get(str(job)) or dict(enumerate(turns.values(), 1)).get(place)) is not None:
        _stopped([turn])
        return shortened(turn.plan.prompt or "")
    found = _named(known, job)
    return used.call(used.runtime.jobs.stop, found.agent_id, found.id, BY_PERSON).command


def stop_jobs() -> str:
    """Stop all background commands, and the turns in the background; return in words how many.

    Example:
        >>> mn.stop_jobs()
        '0 background commands stopped'
    """
    used = engine()
    turns = stop_turns()
    stopped = used.call(used.runtime.jobs.stop_all, BY_PERSON)
    also = f"{counted(turns, 'turn')} and " if turns else ""
    return f"{also}{counted(len(stopped), 'background command')} stopped"


def stop_turns() -> int:
    """Stop the turns that go on in the background, wait for their ends, and return how many they were."""
    return _stopped(list(_turns(engine()).values()))


def _stopped(turns: list[RunningTurn]) -> int:
    for turn in turns:
        turn.stop()
    for turn in turns:
        turn.wait()
    return len(turns)


def _turns(used: Engine) -> dict[str, RunningTurn]:
    """Return the turns in the background by id, in the order they began."""
    found = sorted((turn for turn in list(used.turns) if turn.plan.in_background), key=lambda turn: turn.began)
    return {f"turn-{turn.number}": turn for turn in found}


def _turn_row(id: str, turn: RunningTurn, now: float) -> dict[str, Any]:
    session = turn.session
    name = "" if session is None else "this notebook" if session.name == session.id else session.name
    woken_by = turn.plan.woken_by
    command = shortened(turn.plan.prompt or "") if woken_by is None else f"the model reads the result of {woken_by}"
    about = {"status": "running", "command": command, "conversation": name}
    return {**about, "started_at": turn.began, "seconds": round(now - turn.began, 3), "output": "", "id": id}


def stop_jobs_soon() -> None:
    """Begin to stop all background commands, without waiting for their ends."""
    used = engine()
    used.portal().start_task_soon(used.runtime.jobs.stop_all, BY_PERSON)


def _found(used: Engine) -> list[BackgroundJob]:
    known = used.runtime.jobs
    return sorted((job for agent_id in known.agents() for job in known.of(agent_id)), key=lambda job: job.started_at)


def _named(found: list[BackgroundJob], job: str | int) -> BackgroundJob:
    """Return the job of a number or an id. Raises `OperationDenied`."""
    if str(job).isdecimal() and 1 <= int(job) <= len(found):
        return found[int(job) - 1]
    same = [each for each in found if each.id == job]
    same = [each for each in same if each.status == "running"] or same
    if not same:
        raise OperationDenied(f"there is no background command {job!r}: mn.jobs() lists them")
    if len(same) > 1:
        raise OperationDenied(f"more than one background command is called {job!r}: take its number in mn.jobs()")
    return same[0]


def _row(job: BackgroundJob, conversation: str, now: float) -> dict[str, Any]:
    row = job.model_dump(include=set(COLUMNS))
    ended = job.finished_at if job.finished_at is not None else now
    seconds = round(ended - job.started_at, 3)
    output = job.output_preview or shortened(output_of(job, SO_FAR))
    return {**row, "conversation": conversation, "output": output, "seconds": seconds}
