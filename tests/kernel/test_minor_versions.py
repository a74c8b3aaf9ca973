"""What depends on the version of ipykernel, on those before the installed one: a cell that waits for an answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kits.kernels import Kernel, overlay

pytestmark = pytest.mark.kernel


@pytest.fixture(params=["7.0", "7.1", "7.2", "7.3"])
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    """A kernel with `%%turn`, whose widget messages come on a subshell."""
    running = Kernel(overlay(request.param), subshell=True)
    try:
        found = running.run("import ipykernel; print(ipykernel.__version__)").stdout
        assert found.startswith(f"{request.param}.")
        running.run("%load_ext kits.scripted_turn")
        yield running
    finally:
        running.close()


def test_a_waiting_cell_hears_a_click_a_command_and_a_stop_and_queued_cells_keep_their_order(kernel: Kernel) -> None:
    clicked, queued = kernel.send("%%turn\nls -la"), kernel.send("print('B')")
    kernel.ready(clicked)
    late = kernel.send("print('C')")
    kernel.request("kernel_info_request")  # served in order of arrival, so the pump has seen the late cell by then
    assert not clicked.ended
    kernel.choose(clicked, answer="allow")
    kernel.finish(clicked, queued, late)
    assert "you, once" in clicked.texts()
    assert (queued.stdout, late.stdout) == ("B\n", "C\n")
    assert kernel.started[-3:] == [cell.msg_id for cell in (clicked, queued, late)]

    denied = kernel.send("%%turn\nls")
    kernel.finish(kernel.type_command(denied, "%mentra deny because it is late"), denied)
    assert "it is late" in denied.texts()

    stopped, dropped = kernel.send("%%turn\nls"), kernel.send("print('D')")
    kernel.ready(stopped)
    kernel.manager.interrupt_kernel()
    kernel.finish(stopped, dropped)
    assert [cell.reply["ename" if cell is stopped else "status"] for cell in (stopped, dropped) if cell.reply] == [
        "TurnStopped",
        "aborted",
    ]
    assert kernel.run("print('E')").stdout == "E\n"
    assert not kernel.models
