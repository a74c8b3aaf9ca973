"""Every exported function and class has an example in its docstring, and every example runs, offline."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from kits import examples

import mentra_nb

EXPORTED = {
    name: value for name in mentra_nb.__all__ if not isinstance(value := getattr(mentra_nb, name), str | ModuleType)
}
METHODS = {
    f"{name}.{method}": function
    for name, value in EXPORTED.items()
    if inspect.isclass(value)
    for method, function in ((key, getattr(each, "__func__", each)) for key, each in list(vars(value).items()))
    if not method.startswith("_") and inspect.isfunction(function)
}

RECEIVED = {
    *("AgentEvent", "AgentSnapshot", "JournalHealth", "PermissionQuestion", "PersistedAgentSummary", "RuntimeEvent"),
    *("PreExecutionContext", "SessionEvent", "Skill", "Spent", "ToolAuthorizationPreview", "ToolAuthorizationRequest"),
    *("Boundary", "ToolAuthorizationOutcome", "ToolCallSummary"),
}
"""Data that programs are given and only read; its fields are described one by one."""

PROTOCOLS = {"AuditStore", "RoundSource", "RuntimeExecutor", "RuntimeStore"}
"""What an object must offer; `Journal`, `Steering`, `LocalExecutor` and `SqliteStore` are the examples."""

MAGICS = {"load_ipython_extension", "unload_ipython_extension"}
"""What IPython calls for `%load_ext mentra_nb`."""


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with examples.notebook(tmp_path_factory.mktemp("examples")) as known:
        yield known


@pytest.mark.parametrize("name", [name for name, value in (EXPORTED | METHODS).items() if examples.examples_of(value)])
def test_the_example_runs(name: str, names: dict[str, Any]) -> None:
    examples.use_example_model()
    examples.run(name, examples.examples_of((EXPORTED | METHODS)[name]), dict(names))


def test_every_exported_callable_has_an_example() -> None:
    without = {name for name, value in EXPORTED.items() if not examples.examples_of(value)}
    assert without == RECEIVED | PROTOCOLS | MAGICS


def test_an_example_can_fail(names: dict[str, Any]) -> None:
    def wrong() -> None:
        """
        >>> 1 + 1
        3
        """

    with pytest.raises(AssertionError, match="wanted"):
        examples.run("wrong", examples.examples_of(wrong), dict(names))
