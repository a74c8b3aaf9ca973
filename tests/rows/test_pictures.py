"""Columns of pictures and files: what is sent on each wire, what is stored, and what is refused."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from pathlib import Path

import pandas as pd
import pytest
from kits.batch_server import BatchServer
from kits.conformance import TEXT, stream
from kits.dialects import DIALECTS
from kits.http_server import Reply, Server
from kits.row_models import RowModel

import mentra_nb as mn
from mentra_nb.content import Image, Text
from mentra_nb.errors import ConfigurationError
from mentra_nb.providers.base import ProviderCapabilities
from mentra_nb.providers.registry import adapter
from mentra_nb.rows import batching, pictures


def png(red: int) -> bytes:
    """Return a picture of one pixel."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes([0, red, 0, 0])))]
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in [*parts, (b"IEND", b"")]
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.fixture
def seeing(model: RowModel) -> RowModel:
    """The model of `model`, which takes pictures."""
    model.capabilities = ProviderCapabilities(supports_images=True)
    return model


def pictured(model: RowModel) -> list[list[str]]:
    """Return for each request what is in its prompt: texts, and pictures as `picture`. Forget the requests."""
    found = [
        [block.text if isinstance(block, Text) else "picture" for block in request.messages[-1].content]
        for request in model.requests
    ]
    model.requests.clear()
    return sorted(found)


@pytest.mark.anyio
@pytest.mark.parametrize("wire", DIALECTS)
async def test_a_picture_is_sent_as_one_on_every_wire(wire: str, server: Server, model: RowModel) -> None:
    provider = adapter(wire)("lab", server.url, api_key="k")
    mn.use(provider, "m")
    server.reply(*(Reply([stream(DIALECTS[wire].answer(TEXT)[0])]) for _ in range(2)))
    Path("photo.png").write_bytes(png(2))
    frame = pd.DataFrame({"photo": [png(1), Path("photo.png")]})
    found = await mn.amap("What is on {photo}?", frame, workers=1, progress=False)
    assert found.error.isna().all()
    sent = [json.dumps(request.json()) for request in server.requests if request.method == "POST"]
    assert len(sent) == 2
    for body, red in zip(sent, (1, 2), strict=True):
        assert "image/png" in body
        assert base64.b64encode(png(red)).decode() in body
        assert "What is on " in body
        assert "photo" not in body


def test_pictures_stand_where_their_names_are_and_equal_ones_are_asked_once(seeing: RowModel) -> None:
    frame = pd.DataFrame({"id": [1, 1, 1], "photo": [png(1), png(1), png(2)]})
    assert mn.map("{id}: {photo}, and?", frame, progress=False).error.isna().all()
    assert pictured(seeing) == [["1: ", "picture", ", and?"]] * 2
    mn.map("{id}: {photo}, and?", frame, progress=False)
    assert pictured(seeing) == []


def test_a_file_whose_content_changed_is_asked_again_and_one_that_moved_is_not(seeing: RowModel) -> None:
    Path("a.txt").write_text("first")
    frame = pd.DataFrame({"file": ["a.txt"]})
    assert mn.map("Read {@file}", frame, progress=False).answer.tolist() == ["Read first"]
    assert mn.map("Read {file}", frame, progress=False).answer.tolist() == ["Read a.txt"]
    Path("b.txt").write_text("first")
    seeing.requests.clear()
    mn.map("Read {@file}", pd.DataFrame({"file": ["b.txt"]}), progress=False)
    assert pictured(seeing) == []
    Path("a.txt").write_text("second")
    assert mn.map("Read {@file}", frame, progress=False).answer.tolist() == ["Read second"]


def test_a_row_whose_file_may_not_be_read_fails_by_itself_without_a_request(
    seeing: RowModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "MOST_CHARACTERS", 10)
    (tmp_path / "secret.txt").write_text("beyond")
    Path("long.txt").write_text("x" * 11)
    Path("good.txt").write_text("good")
    Path(".env").write_text("KEY=1")
    paths = [str(tmp_path / "secret.txt"), "../secret.txt", "none.txt", "long.txt", ".env", "good.txt"]
    found = mn.map("Read {@file}", pd.DataFrame({"file": paths}), progress=False)
    assert found.error.isna().tolist() == [False] * 5 + [True]
    assert "more than 10 characters" in found.error[3]
    assert pictured(seeing) == [["Read good"]]


def test_bytes_that_are_no_picture_fail_by_themselves(seeing: RowModel) -> None:
    found = mn.map("See {x}", pd.DataFrame({"x": [b"\x00\x01", png(1)]}), progress=False)
    assert "cannot be sent" in found.error[0]
    assert pictured(seeing) == [["See ", "picture"]]


def test_a_model_that_takes_no_pictures_is_refused_before_any_request(model: RowModel) -> None:
    Path("a.txt").write_text("text")
    with pytest.raises(ConfigurationError, match="rows/m takes no pictures: name a model that does"):
        mn.map("See {x}", pd.DataFrame({"x": [None, png(1)]}), progress=False)
    assert model.requests == []
    assert mn.map("See {@x}", pd.DataFrame({"x": ["a.txt"]}), progress=False).answer.tolist() == ["See text"]


def test_a_dry_map_counts_pictures_and_sends_nothing(seeing: RowModel) -> None:
    text = mn.map("See {x}", pd.DataFrame({"x": ["a"]}), dry=True)
    seen = mn.map("See {x}", pd.DataFrame({"x": [Image.from_bytes("image/png", png(1))]}), dry=True)
    assert seen.least_tokens[0] >= text.least_tokens[0] + 80
    assert seen.most_tokens[0] >= text.most_tokens[0] + 5_000
    assert seeing.requests == []


def test_a_batch_has_pictures_and_fails_the_row_whose_file_cannot_be_read(
    model: RowModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "FIRST_LOOK", 0.01)
    Path("photo.png").write_bytes(png(2))
    with BatchServer("chat_completions") as server:
        mn.connect("lab", server.url, wire="chat_completions", model="m")
        frame = pd.DataFrame({"photo": ["photo.png", "none.png"]})
        found = mn.map("{@photo}: what is it?", frame, batch=True, progress=False)
    assert found.error.isna().tolist() == [True, False]
    assert "none.png" in found.error[1]
    assert any(base64.b64encode(png(2)) in raw for raw in server.files.values())
