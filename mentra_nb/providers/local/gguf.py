"""A model's file before it is loaded: checks, the size of its context, its projector for images.

A projector is a second file, `mmproj*.gguf` in the same folder.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from mentra_nb.errors import InvalidRequest

CACHE = 1 << 30
"""Bytes of memory for the context of a model, unless a size is given."""
STEP = 256
"""Tokens. llama.cpp makes the size of a context a multiple of this."""
GUESS = 128 << 10
"""Bytes per token of context where the file does not say: as in models of about 8 billion weights."""
SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
"""GGUF's number types as `struct` formats; type 8 is text, 9 an array."""


def file_problem(path: str) -> str | None:
    """Return why this model cannot be used, in one sentence, or `None`. Loads nothing."""
    file = resolved(path)
    if not file.is_file():
        return f"there is no model file {file}: name a GGUF file, as local:/path/model.gguf"
    try:
        with file.open("rb") as opened:
            magic = opened.read(4)
    except OSError as error:
        return f"the model file {file} cannot be read: {error.strerror}"
    if magic != b"GGUF":
        return f"{file} is not a GGUF file: a local model needs one"
    if find_spec("xllamacpp") is None:
        return "models in the process need llama.cpp: pip install 'mentra-nb[local]'"
    return None


def resolved(path: str) -> Path:
    """Return the absolute path, with `~` expanded."""
    return Path(path).expanduser().absolute()


def projector(file: Path) -> Path:
    """Return the projector beside a model. Raises `InvalidRequest` if there is not exactly one."""
    found = sorted(file.parent.glob("mmproj*.gguf"))
    if len(found) == 1:
        return found[0]
    why = f"there are {len(found)} projectors" if found else "there is no projector"
    raise InvalidRequest(f"local does not support images here: {why} beside {file}; keep one file mmproj*.gguf there")


def context_size(file: Path, wanted: int | None = None) -> int:
    """Return the tokens of prompt and answer together: those `wanted`, or as many as `CACHE` holds.

    Never more than the model was trained for.

    Raises `InvalidRequest` for a damaged file.
    """
    try:
        about = {key.partition(".")[2]: value for key, value in metadata(file).items()}
    except (OSError, LookupError, ValueError) as error:
        raise InvalidRequest(f"{file} does not say what model it is: it may be damaged") from error
    size = wanted or CACHE // _bytes_of_a_token(about)
    trained = about.get("context_length")
    return max(STEP, min(size, trained if isinstance(trained, int) else size) // STEP * STEP)


def metadata(file: Path) -> dict[str, Any]:
    """Return the metadata of a GGUF file without the vocabulary. Raises `OSError`, `LookupError` or `ValueError`."""
    with file.open("rb") as opened:
        return dict(_pairs(opened, file.stat().st_size))


def _bytes_of_a_token(about: dict[str, Any]) -> int:
    """Return the bytes of one token's keys and values, at two bytes a number; `GUESS` if the file does not say."""
    try:
        heads, layers = about["attention.head_count"], about["block_count"]
        width = about["embedding_length"] // (max(heads) if isinstance(heads, list) else heads)
        width = about.get("attention.key_length", width) + about.get("attention.value_length", width)
        kept = about.get("attention.head_count_kv", heads)
        return int(2 * width * (sum(kept) if isinstance(kept, list) else kept * layers)) or GUESS
    except (LookupError, TypeError, ArithmeticError):
        return GUESS


def _pairs(file: BinaryIO, size: int) -> Iterator[tuple[str, Any]]:
    def take(form: str) -> Any:
        data = file.read(struct.calcsize(form))
        if len(data) < struct.calcsize(form):
            raise ValueError("the file ends early")
        return struct.unpack(form, data)[0]

    def length() -> int:
        if (found := int(take("<Q"))) > size:
            raise ValueError("it names a length beyond its end")
        return found

    def value(kind: Any) -> Any:
        match kind:
            case 8:
                return take(f"<{length()}s").decode()
            case 9:
                inner = take("<I")
                return [value(inner) for _ in range(length())]
        return take(f"<{SCALARS[kind]}")

    file.seek(4 + 4 + 8)  # the magic, the version, how many tensors
    for _ in range(length()):
        key = value(8)
        if key.startswith("tokenizer."):  # the vocabulary comes last, and is long
            return
        yield key, value(take("<I"))
