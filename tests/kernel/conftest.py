"""Kernels to test on: the installed ipykernel, and ipykernel 6 as an overlay directory; each by both widget routes.

A kernel serves a whole module, as a person's does a whole day; one that a test left unwell is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
from kits.kernels import Kernel, overlay
from kits.notebooks import Notebook

K = TypeVar("K", bound=Kernel)


class Shared(list[K]):
    """The kernel of a module: made when first wanted, and anew when the last one is unwell."""

    def __init__(self, make: Callable[[], K], line: str) -> None:
        super().__init__()
        self.make, self.line = make, line

    def get(self) -> K:
        if self and not well(self[0]):
            self.close()
        if not self:
            self.append(self.make())
            found = self[0].run("import ipykernel; print(ipykernel.__version__)").stdout
            assert found.startswith(f"{self.line}."), f"this is about ipykernel {self.line}, and {found.strip()} runs"
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
    """A kernel with `%%turn`."""
    running = _kernels.get()
    running.run("%load_ext kits.scripted_turn")
    return running


@pytest.fixture(scope="module", params=["7", "6"])
def _notebooks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared[Notebook]]:
    # As JupyterLab has it: widget messages come on a subshell where the kernel has them.
    shared = Shared(
        lambda: Notebook(tmp_path_factory.mktemp("notebook"), overlay(request.param), subshell=True), request.param
    )
    yield shared
    shared.close()


@pytest.fixture
def notebook(_notebooks: Shared[Notebook]) -> Notebook:
    """A kernel with the extension loaded, and a conversation in which nothing has been said."""
    running = _notebooks.get()
    running.begin()
    return running
