"""Typed answers: what `as_` asks of a model, and what becomes of the answer."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from mentra_nb.errors import ConfigurationError

if TYPE_CHECKING:
    from mentra_nb.agent.limits import RunOptions
    from mentra_nb.chat.turn import TurnPlan
    from mentra_nb.runtime.session import Session

Cell: TypeAlias = str | int | float | bool | None


def wanted(as_: Any) -> Any:
    """Return the type that the model is asked for. Raises `ConfigurationError` for a text that names none."""
    if not isinstance(as_, str):
        return as_
    if as_ == "df":
        return _table()
    if as_ == "json":
        return _json()
    raise ConfigurationError(f"there is no answer as {as_!r}: give a type such as list[str], or 'df' or 'json'")


async def answer(session: Session, plan: TurnPlan, options: RunOptions, *, keeps_tools: bool) -> Any:
    """Take a turn and return its value: a frame or the plain JSON where that was asked for."""
    found = await session.run_to_output(
        plan.content(session), plan.output, options, plan.origin, keeps_tools=keeps_tools
    )
    if plan.output is _json():
        return found.value
    if plan.output is not _table():
        return found
    import pandas as pd

    frame = pd.DataFrame(found.rows, columns=found.columns)
    frame.attrs["mentra_nb"] = True  # its text is a model's, so it is shown closed to MathJax
    return frame


@cache
def _table() -> Any:
    """Return the type of a table: every wire can hold its schema, and columns are named once."""
    from pydantic import BaseModel, create_model, model_validator

    class Table(BaseModel):
        """A table. Every row has a cell for each column, in their order."""

        columns: list[str]
        rows: list[list[Cell]]

        @model_validator(mode="after")
        def check(self) -> Any:
            if len(set(self.columns)) != len(self.columns):
                raise ValueError("two columns have the same name")
            for n, row in enumerate(self.rows, 1):
                if len(row) != len(self.columns):
                    raise ValueError(f"row {n} has {len(row)} cells, and there are {len(self.columns)} columns")
            return self

    return create_model("df", __base__=Table)


@cache
def _json() -> Any:
    from pydantic import JsonValue, create_model

    return create_model("json", value=(JsonValue, ...))
