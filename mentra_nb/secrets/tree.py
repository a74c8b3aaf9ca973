"""Replace secrets in JSON-like values, where also the name of a field says that its value is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mentra_nb.secrets.mask import REDACTED, mask_secrets
from mentra_nb.secrets.names import is_generated_key, is_secret_flag, is_secret_name


def mask_values(value: Any, of_text: Callable[[str], str] = mask_secrets) -> Any:
    """Return the value with `[redacted]` for each secret in it, by name, place or form. Numbers are kept.

    Args:
        value: A JSON-like value.
        of_text: What to do with each text whose name does not say that it is a secret.

    Example:
        >>> mask_values({"user": "ann", "headers": [["X-Api-Key", "abc"]]})
        {'user': 'ann', 'headers': [['X-Api-Key', '[redacted]']]}
    """
    if isinstance(value, str):
        return of_text(value)
    if isinstance(value, Mapping):
        return _fields(value, of_text)
    if isinstance(value, list | tuple):
        return _items(value, of_text)
    return value


def _fields(fields: Mapping[Any, Any], of_text: Callable[[str], str]) -> dict[Any, Any]:
    kept = {key: REDACTED if _is_secret(key, value) else mask_values(value, of_text) for key, value in fields.items()}
    named = fields.get("name", fields.get("key"))
    if isinstance(named, str) and isinstance(fields.get("value"), str) and is_secret_name(named):
        kept["value"] = REDACTED  # an environment variable or header as an object
    return kept


def _is_secret(key: Any, value: Any) -> bool:
    if not isinstance(value, str | list | dict) or not value:
        return False
    name = str(key)
    return is_secret_name(name) or (isinstance(value, str) and is_generated_key(name, value))


def _items(items: Sequence[Any], of_text: Callable[[str], str]) -> list[Any]:
    """Return the items, without the words after flags such as `--token`."""
    is_pair = len(items) == 2 and is_secret_name(str(items[0]))  # of a name and a value
    kept = []
    for before, item in zip((None, *items), items, strict=False):
        follows = isinstance(before, str) and isinstance(item, str) and (is_secret_flag(before) or is_pair)
        kept.append(REDACTED if follows and item else mask_values(item, of_text))
    return kept
