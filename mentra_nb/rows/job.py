"""One map from its arguments to the frame that comes out: what is checked before a request, and what is asked then."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal

from mentra_nb import paths
from mentra_nb.agent.limits import RunOptions
from mentra_nb.amounts import Period, amounts
from mentra_nb.arguments import check_text
from mentra_nb.budget.meter import Meter
from mentra_nb.chat.engine import Engine
from mentra_nb.chat.models import choose
from mentra_nb.errors import BudgetSpent, Cancelled, ConfigurationError
from mentra_nb.event.types import TurnOrigin
from mentra_nb.ids import new_id
from mentra_nb.providers.base import ModelInfo
from mentra_nb.rows.asking import Asker
from mentra_nb.rows.course import Answers, Cache
from mentra_nb.rows.kinds import Kind
from mentra_nb.rows.pace import pace_of
from mentra_nb.rows.row_budget import RowBudget
from mentra_nb.rows.running import RowMap
from mentra_nb.rows.shape import Shape
from mentra_nb.rows.source import Source
from mentra_nb.rows.tally import Tally
from mentra_nb.rows.template import Template
from mentra_nb.store.records import LeaseHolder

EXAMPLE = "mn.map('Is this a complaint? {text}', df, as_=bool)"
ANSWER = "answer"
"""The name of the column of answers without `into`."""
MOST_WORKERS = 1_000


@dataclass(frozen=True)
class Order:
    """The arguments of `map`."""

    prompt: str
    data: Any
    as_: Any = str
    into: str | None = None
    model: str | Sequence[str] | None = None
    system: str | None = None
    workers: int = 16
    budget: str | int | None = None
    examples: Sequence[tuple[Any, Any]] = ()
    retries: int = 5
    on_error: Literal["keep", "raise"] = "keep"
    cache: Cache = True
    progress: bool = True
    dry: bool = False
    batch: bool = False
    client: Any = None

    def check(self) -> None:
        """Raise `ConfigurationError` for a value that cannot be meant."""
        check_text(EXAMPLE, {"into": self.into, "system": self.system}, prompt=self.prompt)
        if not isinstance(self.workers, int) or not 1 <= self.workers <= MOST_WORKERS:
            raise ConfigurationError(f"workers must be a number from 1 to {MOST_WORKERS}, not {self.workers!r}")
        if not isinstance(self.retries, int) or self.retries < 0:
            raise ConfigurationError(f"retries must be 0 or more, not {self.retries!r}")
        if self.on_error not in ("keep", "raise"):
            raise ConfigurationError(f"on_error must be 'keep' or 'raise', not {self.on_error!r}")
        if self.cache not in (True, False, "refresh"):
            raise ConfigurationError(f"cache must be True, False or 'refresh', not {self.cache!r}")
        if not isinstance(self.batch, bool):
            raise ConfigurationError(f"batch must be True or False, not {self.batch!r}")
        is_number = isinstance(self.budget, int) and not isinstance(self.budget, bool)
        if self.budget is not None and not is_number and not isinstance(self.budget, str):
            raise ConfigurationError(f"a budget is such as '2.00usd', '200k' or a number of rows, not {self.budget!r}")
        for unit, _ in amounts(self.budget) if isinstance(self.budget, str) else ():
            if unit not in ("usd", "tokens"):
                raise ConfigurationError(f"the budget of a map is in usd, tokens or rows, not {self.budget!r}")

    def models(self) -> list[str | None]:
        """Return the models that are asked; `None` for the default. Raises `ConfigurationError`."""
        if self.model is None or isinstance(self.model, str):
            return [self.model]
        found = list(self.model)
        if not found or not all(isinstance(each, str) for each in found) or len(set(found)) < len(found):
            raise ConfigurationError("model must be a name such as 'openai/gpt-5', or a list of different names")
        return list(found)


@dataclass(frozen=True)
class Whole:
    """What all parts of a map share, where they are asked in several processes. It holds no key."""

    id: str
    models: tuple[str, ...]
    """As `provider/model`."""
    budgets: dict[Period, str]
    keys: dict[Period, str]
    """Which turn, session and project those budgets are of."""
    origin: TurnOrigin
    most_rows: int | None
    """Rows that may be asked."""

    @property
    def is_limited(self) -> bool:
        """Whether there is any budget."""
        return self.most_rows is not None or any(self.budgets.values())


class Columns:
    """The names of the new columns, for each model."""

    def __init__(self, order: Order, shape: Shape, source: Source) -> None:
        """Name them. Raises `ConfigurationError` if the frame has a column of such a name."""
        self._kinds = shape.columns
        self.by_model: list[tuple[dict[str, Kind], str]] = []
        """For each model its columns of values by name, and its column of errors."""
        for label in _labels(order.models()):
            values = {_name(order.into, field, label): kind for field, kind in shape.columns.items()}
            error = f"error_{label}" if label else "error"
            if error in source.columns:  # such as that of an earlier map
                error = f"{_name(order.into, '', label)}_error"
            self.by_model.append((values, error))
        source.check([name for values, error in self.by_model for name in (*values, error)])

    def added(self, answers: Sequence[Answers]) -> dict[str, tuple[Kind, list[Any]]]:
        """Return the columns by name: their kinds and their values."""
        added: dict[str, tuple[Kind, list[Any]]] = {}
        for (values, error), found in zip(self.by_model, answers, strict=True):
            for place, (name, kind) in enumerate(values.items()):
                added[name] = kind, [None if cells is None else cells[place] for cells in found.cells]
            added[error] = Kind("text"), [None if each is None else str(each) for each in found.errors]
        return added


def _labels(models: Sequence[str | None]) -> list[str]:
    """Return what tells the columns of several models apart: the end of their names, or all of them."""
    if len(models) == 1:
        return [""]
    names = [name or "" for name in models]
    short = [name.rpartition("/")[2] for name in names]
    return short if len(set(short)) == len(short) else names


def _name(into: str | None, field: str, label: str) -> str:
    parts = (into, field, label) if field else (into or ANSWER, label)
    return "_".join(filter(None, parts))


class Job:
    """A map that is checked and can be started."""

    def __init__(self, order: Order, whole: Whole | None = None, *, is_part: bool = False) -> None:
        """Check everything that can be checked without a model. Raises `ConfigurationError`.

        Args:
            order: What is asked about which rows.
            whole: The map of which these rows are a part, if it is not this one.
            is_part: Whether there may be other parts, so that columns need types that do not depend on the answers.
        """
        order.check()
        self._whole, self._is_part = whole, is_part
        self.order = order
        self.template: Template = Template(order.prompt)
        self.source: Source = Source(order.data, is_part=is_part)
        self.template.check(self.source.columns)
        self.shape: Shape = Shape(order.as_)
        self.columns: Columns = Columns(order, self.shape, self.source)
        self.examples: list[tuple[Mapping[str, Any], str]] = [self._example(*each) for each in order.examples]
        self.id: str = whole.id if whole is not None else new_id("map")
        self.future: Future[list[Answers]]
        self._map: RowMap | None = None
        self._is_stopped = False

    def _example(self, values: Any, answer: Any) -> tuple[Mapping[str, Any], str]:
        names = self.template.columns
        if not isinstance(values, Mapping):
            values = {names[0]: values} if len(names) == 1 else {}
        if missing := [name for name in names if name not in values]:
            raise ConfigurationError(
                f"an example lacks a value for '{missing[0]}': write ({{'{missing[0]}': …}}, answer)"
            )
        return values, self.shape.written(answer)

    @property
    def tally(self) -> Tally:
        """What is done so far."""
        return self._map.tally if self._map is not None else Tally(total=len(self.source))

    def start(self, used: Engine, origin: TurnOrigin) -> None:
        """Begin on the engine's thread; `future` is done when the map has ended. In the record it has this origin."""
        self.future = used.portal().start_task_soon(self._run, used, origin)

    def stop(self, used: Engine) -> None:
        """Send no more requests, from any thread; `future` then has the rows that are done."""
        used.portal().start_task_soon(self._stop)

    async def _stop(self) -> None:
        self._is_stopped = True
        if self._map is not None:
            self._map.stop()

    async def whole(self, used: Engine, origin: TurnOrigin) -> Whole:
        """Return what all parts of the map share. Raises `ConfigurationError` for a model that cannot be used."""
        if self._whole is None:
            budgets: dict[Period, str] = {**used.budgets(RunOptions())}
            budget = self.order.budget
            if isinstance(budget, str):
                budgets["turn"] = budget
            keys: dict[Period, str] = {"turn": self.id, "session": origin.session_id or ""}
            keys["project"] = str(paths.project_root())
            models = [await _full_name(name, used) for name in self.order.models()]
            most_rows = budget if isinstance(budget, int) else None
            self._whole = Whole(self.id, tuple(models), budgets, keys, origin, most_rows)
        return self._whole

    async def askers(self, used: Engine, origin: TurnOrigin) -> list[Asker]:
        """Return one for each model. Raises `ConfigurationError` for a model that cannot be asked within a budget."""
        order, askers = self.order, list[Asker]()
        whole = await self.whole(used, origin)
        meter = Meter(used.runtime.store, LeaseHolder.here(used.runtime.id), whole.budgets, whole.keys)
        for name in whole.models:
            model = await used.model(name)
            provider, pace = used.runtime.provider(model.provider), pace_of(used.runtime, model.provider)
            how: dict[str, Any] = {"system": order.system, "examples": self.examples, "retries": order.retries}
            how["policy"] = used.runtime.policy
            asker = Asker(provider, model.id, self.template, self.shape, meter, pace, **how)
            asker.check_priced()
            if not provider.takes_images(model.id):
                names = self.template.columns
                await asker.check_sight(dict(zip(names, each, strict=True)) for each in self.source.values(names))
            askers.append(asker)
        return askers

    async def _run(self, used: Engine, origin: TurnOrigin) -> list[Answers]:
        order, store, askers = self.order, used.runtime.store, await self.askers(used, origin)
        rows = (await self.whole(used, origin)).most_rows
        holder = LeaseHolder.here(used.runtime.id)
        self._map = RowMap(
            used.runtime,
            self.source,
            askers,
            workers=order.workers,
            budget=None if rows is None else RowBudget(store, holder, self.id, rows),
            cache=order.cache,
            stops_at_error=order.on_error == "raise",
            id=self.id,
            batch=order.batch,
            is_part=self._is_part,
        )
        if self._is_stopped:
            self._map.stop()
        try:
            return await self._map.run(origin)
        finally:
            used.refresh_record()

    def unanswered(self, rows: int = 0) -> list[Answers]:
        """Return for each model answers to so many rows that are not there yet."""
        return [Answers([None] * rows, [None] * rows) for _ in self.order.models()]

    def result(self, answers: Sequence[Answers]) -> Any:
        """Return the frame with the columns of answers. Raises the error of the first row that failed, if that is so
        ordered."""
        if self.order.on_error == "raise":
            for error in (error for found in answers for error in found.errors):
                if error is not None and not isinstance(error, BudgetSpent | Cancelled):
                    raise error
        return self.source.result(self.columns.added(answers), self.id)


async def _full_name(name: str | None, used: Engine) -> str:
    """Return the full name of a model, without its key where that is possible. Raises `ConfigurationError`."""
    choice = choose(name, used.settings, os.environ, registered=used.registered())
    if choice.model is None:
        return str(await used.model(name))
    return str(ModelInfo(id=choice.model, provider=choice.provider))
