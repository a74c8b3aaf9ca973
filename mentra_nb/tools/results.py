"""What a tool returned, as text or JSON."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from mentra_nb.content import is_too_deep


def as_content(value: Any) -> Any:
    """Return a value as text or JSON: `None` is empty, models are dumped, anything else becomes its `str`.

    JSON that is nested too deep to be stored becomes its text.
    """
    if value is None:
        return ""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if not isinstance(value, str):
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
            text.encode()
            value = text if is_too_deep(value) else value
        except (TypeError, ValueError, RecursionError):
            value = str(value)
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
