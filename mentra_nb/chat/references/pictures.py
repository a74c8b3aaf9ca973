"""Pictures as a model takes them: figures and charts are drawn, and all are made small."""

from __future__ import annotations

import base64
import io
import sys
from importlib.util import find_spec
from typing import Any

from mentra_nb.chat.references.plain import is_of
from mentra_nb.chat.references.reference import Part
from mentra_nb.content import Image
from mentra_nb.namespace.describe import kind_of

LONGEST_SIDE = 1_024
"""Pixels."""
MAX_PIXELS = 100_000_000
"""Of a picture that is made smaller; one with more is not taken."""
MAX_BYTES = 4 << 20
"""Of a picture that is sent as it is."""
_KINDS = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}


def media_type(raw: bytes) -> str | None:
    """Return the kind of a picture by its first bytes; `None` for anything else."""
    if raw[:4] == b"RIFF" and raw[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for begin, kind in _KINDS.items() if raw.startswith(begin)), None)


def picture_part(value: Any) -> Part | None:
    """Return the part of a picture; `None` for a value that is none."""
    if issubclass(type(value), Image):
        return Part("a picture", image=value)
    figures, pillow = sys.modules.get("matplotlib.figure"), sys.modules.get("PIL.Image")
    axes = sys.modules.get("matplotlib.axes")
    if axes is not None and isinstance(value, axes.Axes):
        value = value.get_figure(root=True)
    if figures is not None and isinstance(value, figures.Figure):
        return _drawn("a matplotlib figure", value)
    if pillow is not None and isinstance(value, pillow.Image):
        return _small(f"a picture, {value.width} × {value.height} pixels", value)
    if is_of(value, "altair") and hasattr(value, "to_dict") and hasattr(value, "save"):
        return _chart(value)
    if is_of(value, "IPython") and kind_of(value) == "IPython.core.display.Image":
        raw = value.data
        if isinstance(raw, str):  # Jupyter's own form
            raw = base64.b64decode(raw) if raw else None
        return bytes_part("a picture", raw) if raw else Part("a picture that is only an address, which is not fetched")
    return None


def _drawn(head: str, figure: Any) -> Part:
    into = io.BytesIO()
    inches = max(*figure.get_size_inches(), 0.1)
    figure.savefig(into, format="png", dpi=min(figure.dpi, LONGEST_SIDE / inches))
    return Part(head, image=Image.from_bytes("image/png", into.getvalue()))


def _chart(chart: Any) -> Part:
    if find_spec("vl_convert") is None:
        return Part("an Altair chart, which can be drawn here after: pip install 'mentra-nb[plots]'")
    import altair
    import vl_convert

    version = "_".join(altair.SCHEMA_VERSION.split(".")[:2])
    raw = vl_convert.vegalite_to_png(chart.to_dict(), vl_version=version, allowed_base_urls=[])  # no data by address
    return bytes_part("an Altair chart", raw)


def bytes_part(head: str, raw: bytes) -> Part:
    """Return the part of a picture in the form of a file: smaller where Pillow is installed."""
    kind = media_type(raw)
    if find_spec("PIL") is not None:
        from PIL import Image as Pillow
        from PIL import UnidentifiedImageError

        try:
            with Pillow.open(io.BytesIO(raw)) as opened:
                return _small(f"{head}, {opened.width} × {opened.height} pixels", opened, raw if kind else None)
        except (UnidentifiedImageError, Pillow.DecompressionBombError, OSError, ValueError):
            return Part(f"{head} that cannot be read")
    if kind is None:
        return Part(f"{head} in a form that cannot be sent")
    if len(raw) > MAX_BYTES:
        return Part(f"{head} of {len(raw):,} bytes, which is too large to be sent as it is: pip install pillow")
    return Part(head, image=Image.from_bytes(kind, raw))


def _small(head: str, picture: Any, raw: bytes | None = None) -> Part:
    """Return the part of a picture of Pillow. `raw`: its file, sent as it is if the picture is small."""
    width, height = picture.width, picture.height
    if width * height > MAX_PIXELS:
        return Part(f"{head}, too large to be sent")
    if raw is not None and max(width, height) <= LONGEST_SIDE and len(raw) <= MAX_BYTES:
        return Part(head, image=Image.from_bytes(media_type(raw) or "image/png", raw))
    made = picture.convert("RGBA" if picture.mode in ("P", "LA", "PA", "RGBA") else "RGB")
    made.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    into = io.BytesIO()
    made.save(into, format="png")
    return Part(head, image=Image.from_bytes("image/png", into.getvalue()))
