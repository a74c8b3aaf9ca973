"""`mn.map` and what belongs to it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import wait
from typing import Any, Literal

from mentra_nb import paths
from mentra_nb.arguments import check_text
from mentra_nb.chat.api import conversation
from mentra_nb.chat.engine import Engine, engine
from mentra_nb.chat.turn import presenter
from mentra_nb.errors import OperationDenied
from mentra_nb.event.types import TurnOrigin
from mentra_nb.rows.job import Job, Order
from mentra_nb.rows.progress import REFRESH, Progress


def map(
    prompt: str,
    data: Any,
    *,
    as_: Any = str,
    into: str | None = None,
    model: str | Sequence[str] | None = None,
    system: str | None = None,
    workers: int = 16,
    budget: str | int | None = None,
    examples: Sequence[tuple[Any, Any]] = (),
    retries: int = 5,
    on_error: Literal["keep", "raise"] = "keep",
    cache: bool | Literal["refresh"] = True,
    progress: bool = True,
    dry: bool = False,
    batch: bool = False,
    client: Any = None,
) -> Any:
    """Ask a model about each row of a frame, and return the frame with the answers as columns.

    Answers are stored, so nothing is paid for twice. *Stop* returns what is there. A row that fails has nulls, and
    why in `error`.

    Args:
        prompt: With `{column}` for its value or picture, `{@column}` for the file of that path; `{{` is a brace.
        data: A frame or series of pandas, polars or pyarrow, a DuckDB relation, or a list of texts or dicts. A frame
            of Dask stays lazy, and each partition is asked where it is computed.
        as_: The type of an answer, as pydantic understands it; its fields become columns.
        into: The name of the column of answers, or what those of fields begin with.
        model: As `provider/model`. With a list, each answers every row, in columns of its own.
        budget: Never more than this, such as `2.00usd`, `200k` (tokens), or a number of rows to ask.
        examples: Pairs of values (or dicts of them) and the right answer.
        retries: How often a request is sent again after an error that passes.
        cache: `False` neither uses nor stores answers; `"refresh"` asks anew.
        batch: Let OpenAI, Anthropic or Gemini answer within a day at half the price. A map that is run again, also
            after a restart, waits for what was handed in; *Stop* cancels it. Others are asked row by row.
        dry: Send nothing, and return how many rows would be asked, and the least and most tokens and dollars.
        client: A `distributed.Client`: the rows are asked on the workers of that cluster, `workers` requests at once
            for each part of them.

    Raises:
        ConfigurationError: before any request, such as for a column that is not there.

    Example:
        >>> mn.map("What was the revenue in {month}?", [{"month": "March"}], progress=False).answer.tolist()
        ['Revenue in March was 2400 dollars.']
    """
    order = Order(**locals())
    return _lazy(order, engine()) if _is_lazy(order) else _wait(_job(order))


async def amap(prompt: str, data: Any, **how: Any) -> Any:
    """Do what `map` does without blocking, on any asyncio event loop. Arguments and errors as `map`.

    Cancelling the await stops the map; the answers that are there stay stored.

    Example:
        >>> found = await mn.amap("What was the revenue in {value}?", ["March", "April"], progress=False)
        >>> found.answer.tolist()
        ['Revenue in March was 2400 dollars.', 'Revenue in March was 2400 dollars.']
    """
    order, used = Order(prompt, data, **how), engine()
    if _is_lazy(order):
        return await asyncio.to_thread(_lazy, order, used)
    job = _job(order)
    if job.order.dry:
        return await asyncio.to_thread(_estimate, job, used)
    origin = await asyncio.to_thread(_origin)
    progress = Progress(job.tally.total, is_shown=job.order.progress)
    job.start(used, origin)
    future = asyncio.wrap_future(job.future)
    try:
        while not future.done():
            await asyncio.wait([future], timeout=REFRESH)
            progress.show(job.tally)
    except asyncio.CancelledError:
        job.stop(used)
        await asyncio.wait([future])
        raise
    finally:
        progress.end(job.tally)
    return job.result(future.result())


def forget_rows(prompt: str | None = None, *, model: str | None = None) -> int:
    """Delete stored answers of `map`, and return how many. Without arguments, delete all.

    Args:
        prompt: Only those to this prompt, as it was given to `map`.
        model: Only those of this model, as `provider/model`.

    Example:
        >>> found = mn.map("Where is {value}?", ["Oslo"], progress=False)
        >>> mn.forget_rows("Where is {value}?")
        1
    """
    from mentra_nb.rows.digests import prompt_digest

    check_text("mn.forget_rows('Is this a complaint? {text}')", {"prompt": prompt, "model": model})
    used, digest = engine(), None if prompt is None else prompt_digest(prompt)
    return used.call(used.runtime.store.forget_row_answers, digest, model)


def _is_lazy(order: Order) -> bool:
    return type(order.data).__module__.startswith("dask.dataframe")


def _lazy(order: Order, used: Engine) -> Any:
    from mentra_nb.rows.dask import lazy

    return lazy(order, used, _origin())


def _job(order: Order) -> Job:
    if order.client is None:
        return Job(order)
    from mentra_nb.rows.dask import ClusterJob

    return ClusterJob(order)


def _origin() -> TurnOrigin:
    screen, chat = presenter(), conversation()
    origin = screen.origin() if screen is not None else TurnOrigin()
    project = origin.project or str(paths.project_root())
    return origin.model_copy(update={"session_id": chat.id, "notebook": chat.notebook, "project": project})


def _estimate(job: Job, used: Engine) -> Any:
    from mentra_nb.rows.estimate import estimate

    return used.call(estimate, job, used, _origin())


def _wait(job: Job) -> Any:
    """Run a map, show how far it is, and return its frame. An interrupt ends it early."""
    used = engine()
    if used.is_here():
        raise OperationDenied("a tool that runs on the engine cannot wait for a map here: await mn.amap(...)")
    if job.order.dry:
        return _estimate(job, used)
    origin = _origin()
    progress = Progress(job.tally.total, is_shown=job.order.progress)  # an interrupt meanwhile ends what has not begun
    job.start(used, origin)
    try:
        _watch(job, used, progress)
    finally:
        progress.end(job.tally)
    return job.result(job.future.result())


def _watch(job: Job, used: Engine, progress: Progress) -> None:
    try:
        while not wait([job.future], timeout=REFRESH).done:
            progress.show(job.tally)
    except KeyboardInterrupt:
        job.stop(used)
        wait([job.future])
