"""Pictures that a tool returns: of matplotlib, Pillow and IPython, and the bytes of a picture file."""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Callable
from typing import Any

from mentra_nb.content import Image

MAX_IMAGE_BYTES = 3_750_000
"""What a provider takes in one picture is 5 MB of base64."""
MAX_SIDE = 1568
"""Pixels; models see no more of a picture."""
DPI = 100
_PLAIN_MODES = ("1", "L", "RGB", "RGBA")
_DRAWING = ("matplotlib", "mpl_toolkits", "seaborn")
"""Libraries whose objects may belong to a figure."""
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


def picture_in(value: Any) -> Image | None:
    """Return the picture that a value is, shows or holds the bytes of, or `None`.

    A figure of matplotlib, or anything that belongs to one, is drawn; a picture of Pillow is made to fit.
    """
    if isinstance(value, Image):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return _of_bytes(bytes(value))
    drawn = _of_pillow(value) or _of_matplotlib(value)
    return drawn if drawn is not None else _of_display(value)


def size_of(picture: Image) -> int:
    """Return the number of bytes of a picture; 0 if it is somewhere else."""
    return 0 if picture.data is None else len(picture.data) // 4 * 3 - picture.data.count("=", -2)


def _of_bytes(raw: bytes) -> Image | None:
    media_type = next((kind for signature, kind in _SIGNATURES if raw.startswith(signature)), None)
    if raw[:4] == b"RIFF" and raw[8:12] == b"WEBP":
        media_type = "image/webp"
    return None if media_type is None else Image.from_bytes(media_type, raw)


def _of_pillow(value: Any) -> Image | None:
    pillow = sys.modules.get("PIL.Image")
    if pillow is None or not isinstance(value, pillow.Image):
        return None
    seen_through = value.mode == "P" or "A" in value.mode.upper()
    shown = value.copy() if value.mode in _PLAIN_MODES else value.convert("RGBA" if seen_through else "RGB")
    shown.thumbnail((MAX_SIDE, MAX_SIDE))
    return Image.from_bytes("image/png", _written(lambda to: shown.save(to, format="PNG")))


def _of_matplotlib(value: Any) -> Image | None:
    figures = sys.modules.get("matplotlib.figure")
    if figures is None:
        return None
    if type(value).__module__ == "numpy" and getattr(value, "size", None) and value.dtype.hasobject:
        value = value.flat[0]  # of the parts of one figure
    figure: Any = value
    if not isinstance(value, figures.Figure) and type(value).__module__.split(".")[0] in _DRAWING:
        figure = getattr(value, "figure", None)
    if not isinstance(figure, figures.Figure):
        return None
    dpi = min(DPI, MAX_SIDE / max(*figure.get_size_inches(), 1))
    return Image.from_bytes("image/png", _written(lambda to: figure.savefig(to, format="png", dpi=dpi)))


def _of_display(value: Any) -> Image | None:
    """Return what an object shows of itself in a notebook, if that is a picture."""
    names = [name for name in ("_repr_png_", "_repr_jpeg_") if callable(getattr(type(value), name, None))]
    shown = (_shown(getattr(value, name)) for name in names)
    return next((found for raw in shown if raw and (found := _of_bytes(raw))), None)


def _shown(draw: Callable[[], Any]) -> bytes | None:
    try:
        shown = draw()
        shown = shown[0] if isinstance(shown, tuple) else shown
        return base64.b64decode(shown) if isinstance(shown, str) else shown
    except Exception:  # noqa: BLE001 - foreign code; the object is put into words instead
        return None


def _written(save: Callable[[io.BytesIO], Any]) -> bytes:
    file = io.BytesIO()
    save(file)
    return file.getvalue()
