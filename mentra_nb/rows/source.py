"""The rows that a map goes over, whatever they came in, and the frame that goes out with columns of answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mentra_nb.errors import ConfigurationError
from mentra_nb.rows.kinds import Kind, other_column, pandas_column

if TYPE_CHECKING:
    import narwhals as nw

ALONE = "value"
"""The name of the column that a list of texts, or a series without a name, becomes."""

Added = Mapping[str, tuple[Kind, list[Any]]]
"""New columns by name: their kind, and a value for each row."""


class Source:
    """The rows of a pandas, polars or pyarrow table or series, a DuckDB relation, or a list of texts or dicts."""

    def __init__(self, data: Any, *, is_part: bool = False) -> None:
        """Look at the data. Raises `ConfigurationError` if it is none of these, or has no rows.

        A part of a frame may have none, and its columns of answers have the types of all other parts.
        """
        self._is_part = is_part
        self._is_relation = False
        self._frame = self._eager(data)
        self.columns: list[str] = [str(name) for name in self._frame.columns]
        if len(self._frame) == 0 and not is_part:
            raise ConfigurationError("the frame has no rows, so there is nothing to ask")
        if len(set(self.columns)) < len(self.columns):
            raise ConfigurationError("two columns of the frame have the same name: rename one of them")

    def _eager(self, data: Any) -> nw.DataFrame[Any]:
        import narwhals as nw

        if isinstance(data, list | tuple):
            return nw.from_native(_listed(data), eager_only=True)
        try:
            native: Any = nw.from_native(data, allow_series=True)
        except TypeError:
            raise ConfigurationError(
                f"a map goes over a frame, a series or a list of texts or dicts, not {type(data).__name__}"
            ) from None
        except nw.exceptions.DuplicateError:
            raise ConfigurationError("two columns of the frame have the same name: rename one of them") from None
        if isinstance(native, nw.Series):
            named = native.alias(str(native.name)) if native.name else native.alias(ALONE)
            return named.to_frame()
        if isinstance(native, nw.LazyFrame):
            self._is_relation = native.implementation.is_duckdb()
            native = native.collect()
        frame: nw.DataFrame[Any] = native
        return frame

    def __len__(self) -> int:
        return len(self._frame)

    def values(self, columns: Sequence[str]) -> list[tuple[Any, ...]]:
        """Return the values of these columns, row by row."""
        own = dict(zip(self.columns, self._frame.columns, strict=True))
        return list(zip(*(self._frame.get_column(own[name]).to_list() for name in columns), strict=True))

    def check(self, added: Sequence[str]) -> None:
        """Raise `ConfigurationError` if one of these names is a column already, or is there twice."""
        for name in added:
            if name in self.columns:
                raise ConfigurationError(f"the frame has a column '{name}' already: name another one with into=")
        if len(set(added)) < len(added):
            raise ConfigurationError("two columns of answers would have the same name: name them with into=")

    def result(self, added: Added, about: str) -> Any:
        """Return what came in with more columns, in the same order and with the same index.

        A list or series becomes a DataFrame.

        Args:
            about: The id of the map, which the attributes of a pandas frame name.
        """
        frame = self._frame
        if frame.implementation.is_pandas():
            native = frame.to_native().copy(deep=False)
            for name, (kind, values) in added.items():
                native[name] = pandas_column(kind, values, in_utc=self._is_part)
            native.attrs = {**native.attrs, "mentra_nb": True, "map": about}
            return native
        backend = frame.implementation
        columns = [other_column(kind, name, values, backend) for name, (kind, values) in added.items()]
        native = frame.with_columns(*columns).to_native()
        if not self._is_relation:
            return native
        import duckdb

        return duckdb.from_arrow(native)


def _listed(rows: Sequence[Any]) -> Any:
    import pandas as pd

    if all(isinstance(each, str) for each in rows):
        return pd.DataFrame({ALONE: list(rows)})
    if all(isinstance(each, Mapping) for each in rows):
        return pd.DataFrame(list(rows))
    raise ConfigurationError("a list of rows has only texts or only dicts")
