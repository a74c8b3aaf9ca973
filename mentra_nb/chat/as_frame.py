"""A typed answer as a frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def to_df(value: Any) -> pd.DataFrame:
    """Return a value as a frame: a row for each element of a list, a column for each field."""
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        return value
    return pd.DataFrame(list(map(_record, value if isinstance(value, list | tuple | set | frozenset) else [value])))


def _record(value: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping) or hasattr(type(value), "model_fields"):
        return dict(value)
    return {"value": value}
