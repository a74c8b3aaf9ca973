"""Kernels to test on: the installed ipykernel, and ipykernel 6 as an overlay directory; each by both widget routes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernelkit import Kernel

IPYKERNEL_6 = Path(os.environ.get("MENTRA_IPYKERNEL6") or Path(__file__).parents[2] / ".kernels" / "ipykernel6")


@pytest.fixture(params=["7-main", "7-subshell", "6-main", "6-subshell"])
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    line, route = request.param.split("-")
    overlay = IPYKERNEL_6 if line == "6" else None
    if overlay is not None and not overlay.is_dir():
        missing = f"no ipykernel 6 in {overlay}: run `make kernels`, or set MENTRA_IPYKERNEL6"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    running = Kernel(overlay, subshell=route == "subshell")
    try:
        found = running.run("%load_ext scripted_turn\nimport ipykernel; print(ipykernel.__version__)").stdout
        assert found.startswith(f"{line}."), f"this test is about ipykernel {line}, and {found.strip()} runs"
        yield running
    finally:
        running.close()
