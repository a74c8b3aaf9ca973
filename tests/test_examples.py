"""What is exported, methods included, has a docstring with an example, and every example runs, offline."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from kits import examples

import mentra_nb

EXPORTED = {
    name: value for name in dir(mentra_nb) if not isinstance(value := getattr(mentra_nb, name), str | ModuleType)
}
METHODS = {
    f"{name}.{method}": function
    for name, value in EXPORTED.items()
    if inspect.isclass(value)
    for method, function in ((key, getattr(each, "__func__", each)) for key, each in list(vars(value).items()))
    if not method.startswith("_") and inspect.isfunction(function) and function.__module__.startswith("mentra_nb")
    if function.__name__ == method  # not a field whose default is a function
}
PROPERTIES = {
    f"{name}.{key}": value
    for name, kind in EXPORTED.items()
    if inspect.isclass(kind)
    for key, value in vars(kind).items()
    if not key.startswith("_") and isinstance(value, property)
}

RECEIVED = {
    *("AgentEvent", "AgentSnapshot", "JournalHealth", "PermissionQuestion", "PersistedAgentSummary", "RuntimeEvent"),
    *(
        "PostExecutionContext",
        "PreExecutionContext",
        "SessionEvent",
        "Skill",
        "Spent",
        "ToolAuthorizationPreview",
        "ToolAuthorizationRequest",
    ),
    *("Boundary", "ToolAuthorizationOutcome", "ToolCallSummary"),
}
"""Data that programs are given and only read; its fields are described one by one."""

PROTOCOLS = {"AuditStore", "RoundSource", "RuntimeExecutor", "RuntimeStore"}
"""What an object must offer; `Journal`, `Steering`, `LocalExecutor` and `SqliteStore` are the examples."""

CALLED_BY_THE_RUNTIME = {
    *("AuditHook", "AuditStore", "FunctionTool", "NullAudit", "PreExecutionHook", "Provider", "RoundSource"),
    *("RuntimeEvent", "RuntimeExecutor", "RuntimeHook", "RuntimeStore", "ScriptedProvider", "Tool", "ToolAuthorizer"),
    *("Agent.add_source", "Agent.detach", "Agent.unload", "Agent.use_model", "CancellationToken.bound_to"),
    *(
        "CancellationToken.calling",
        "Chat.forget_session",
        "Chat.take_up",
        "McpServer.environment",
        "Message.call_ids",
        "Message.encoded",
        "Message.form",
    ),
    *("Request.defers", "RunOptions.child", "RunOptions.stoppable", "RunningTurn.ended", "RunningTurn.notice"),
    *("Runtime.http", "RuntimeHooks.emit", "Session.listening", "Session.speaking_as"),
}
"""Methods, and classes with methods, that programs write or inherit, and the package calls."""

MAGICS = {"load_ipython_extension", "unload_ipython_extension"}
"""What IPython calls for `%load_ext mentra_nb`."""


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with examples.notebook(tmp_path_factory.mktemp("examples")) as known:
        yield known


SLOW = {"Agent", "ConnectedServer", "McpServers", "Runtime", "compare", "export", "plot", "sessions", "turns"}
"""Whose examples start a server, read the record for the first time, or draw."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name, value in (EXPORTED | METHODS).items()
        if examples.examples_of(value)
    ],
)
def test_the_example_runs(name: str, names: dict[str, Any]) -> None:
    examples.use_example_model()
    examples.run(name, examples.examples_of((EXPORTED | METHODS)[name]), dict(names))


def test_every_exported_callable_has_an_example() -> None:
    without = {name for name, value in EXPORTED.items() if not examples.examples_of(value)}
    assert without == RECEIVED | PROTOCOLS | MAGICS


def shown(kind: str) -> str:
    """Return the code of all examples of a class and its methods."""
    of_kind = [EXPORTED[kind], *(function for name, function in METHODS.items() if name.startswith(f"{kind}."))]
    return "".join(example.source for value in of_kind for example in examples.examples_of(value))


def undocumented(kinds: dict[str, Any], members: dict[str, Any]) -> set[str]:
    """Return the methods and properties without a docstring, also without one of a class they override."""
    return {name for name in members if not inspect.getdoc(getattr(kinds[name.split(".")[0]], name.split(".")[1]))}


def test_every_method_of_an_exported_class_has_a_docstring() -> None:
    assert undocumented(EXPORTED, METHODS | PROPERTIES) == set()


def test_every_method_a_program_calls_is_in_an_example() -> None:
    without = set()
    for name in METHODS:
        kind, _, method = name.partition(".")
        if kind in RECEIVED or {kind, name} & CALLED_BY_THE_RUNTIME:
            continue
        if not re.search(rf"(\.|def ){method}\(", shown(kind)):
            without.add(name)
    assert without == set()


def test_a_missing_docstring_is_found() -> None:
    class Bare:
        def method(self) -> None: ...

        @property
        def value(self) -> None: ...

    assert undocumented({"Bare": Bare}, {"Bare.method": Bare.method, "Bare.value": Bare.value}) == {
        "Bare.method",
        "Bare.value",
    }


def test_an_example_can_fail(names: dict[str, Any]) -> None:
    def wrong() -> None:
        """
        >>> 1 + 1
        3
        """

    with pytest.raises(AssertionError, match="wanted"):
        examples.run("wrong", examples.examples_of(wrong), dict(names))
