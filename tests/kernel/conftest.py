"""Kernels to test on: the installed ipykernel, and ipykernel 6 as an overlay directory; each by both widget routes.

A kernel serves all tests of a module. One that no longer works is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
from kits.kernels import Kernel, overlay
from kits.notebooks import Notebook

K = TypeVar("K", bound=Kernel)


class Shared(list[K]):
    """The kernel of a module: started when first needed, and again when it no longer works."""

    def __init__(self, make: Callable[[], K], line: str) -> None:
        super().__init__()
        self.make, self.line = make, line

    def get(self) -> K:
        if self and not well(self[0]):
            self.close()
        if not self:
            self.append(self.make())
            found = self[0].run("import ipykernel; print(ipykernel.__version__)").stdout
            assert found.startswith(f"{self.line}."), f"ipykernel {self.line} is needed, and {found.strip()} runs"
        return self[0]

    def close(self) -> None:
        while self:
            self.pop().close()


def well(kernel: Kernel) -> bool:
    try:
        return kernel.forget().run("print('well')").stdout == "well\n" and not kernel.models
    except TimeoutError:
        return False


@pytest.fixture(scope="module", params=["7-main", "7-subshell", "6-main", "6-subshell"])
def _kernels(request: pytest.FixtureRequest) -> Iterator[Shared[Kernel]]:
    line, route = request.param.split("-")
    shared = Shared(lambda: Kernel(overlay(line), subshell=route == "subshell"), line)
    yield shared
    shared.close()


@pytest.fixture
def kernel(_kernels: Shared[Kernel]) -> Kernel:
    """Return a kernel with `%%turn`."""
    running = _kernels.get()
    running.run("%load_ext kits.scripted_turn")
    return running


@pytest.fixture(scope="module", params=["7", "6"])
def _notebooks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared[Notebook]]:
    # As in JupyterLab: widget messages come on a subshell where the kernel has them.
    shared = Shared(
        lambda: Notebook(tmp_path_factory.mktemp("notebook"), overlay(request.param), subshell=True), request.param
    )
    yield shared
    shared.close()


@pytest.fixture
def notebook(_notebooks: Shared[Notebook]) -> Notebook:
    """Return a kernel with the extension loaded and an empty conversation."""
    running = _notebooks.get()
    running.begin()
    return running
