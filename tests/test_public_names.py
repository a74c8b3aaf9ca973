"""What `mentra_nb` exports: these names, from these modules, with every type that their signatures mention."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import mentra_nb

# fmt: off
EXPORTED = [
    "Agent", "AgentConfig", "AgentEvent", "AgentSnapshot", "AgentTemplate", "Agreement", "AuditHook", "AuditStore",
    "Boundary", "CancellationToken", "Chat", "CommandRequest", "ConnectedServer", "ExecOutput", "Form", "FormField",
    "FunctionTool", "Image", "Journal", "JournalHealth", "LocalExecutor", "McpServer", "McpServers", "McpStatus",
    "MemoryConfig", "Message", "ModelInfo", "ModelSelector", "NullAudit", "OutputOptions", "PermissionDecision",
    "PermissionQuestion", "PermissionRule", "PersistedAgentSummary", "PostExecutionContext",
    "PostExecutionDecision", "PostExecutionHook", "PreExecutionContext", "PreExecutionDecision", "PreExecutionHook",
    "Preview", "Provider", "ProviderCapabilities", "ProviderDescriptor", "RecordHead", "Reply", "Request",
    "ResponseFormat", "RoundSource", "RunOptions", "RunningTurn", "Runtime", "RuntimeEvent", "RuntimeExecutor",
    "RuntimeHook", "RuntimeHooks", "RuntimePolicy", "RuntimeStore", "ScriptedProvider", "Session", "SessionEvent",
    "Skill", "Spent", "SqliteStore", "TeamConfig", "TeamView", "TokenUsage", "Tool", "ToolAuthorizationDecision",
    "ToolAuthorizationOutcome",
    "ToolAuthorizationPreview", "ToolAuthorizationRequest", "ToolAuthorizer", "ToolCallSummary", "ToolChoice",
    "ToolContext", "ToolError", "ToolOutput", "ToolSpec", "TurnOrigin", "UndoResult", "VolatileStore",
    "__version__", "aask", "advice", "agreement", "allow", "allow_everything", "amap", "ask", "authorization",
    "backtest", "budgets", "columns", "compare", "connect", "content", "decisions", "denial_reasons", "deny",
    "effects", "errors", "event_types", "events", "export", "feedback", "forget", "forget_rows", "http",
    "hybrid_store", "jobs", "load_ipython_extension", "mcp", "mcp_servers", "memories", "memory_tools", "messages",
    "model_calls", "models", "pin", "plot", "preview", "provider", "prune", "record_head", "records", "replay",
    "reviewer_report", "revoke", "rule_changes", "rules", "screen_events", "scripted", "sessions", "slowest_tools",
    "sql", "stop_job", "stop_jobs", "strategy", "subagent_tools", "suggest_rules", "tape", "task_tools", "tasks",
    "team", "team_tools", "time_spent", "tool", "tool_calls", "turns", "undo", "unload_ipython_extension", "usage",
    "use", "verify", "woken_turns",
]
# fmt: on

NOT_BY_STAR = ["map"]
"""Exported too, but not by `from mentra_nb import *`, which would hide the built-in function."""

MADE_BY_THE_RUNTIME = {"Agent", "Session"}
"""Classes that programs get from a `Runtime`; what their constructors take is internal."""


def test_exported_names() -> None:
    assert sorted(mentra_nb.__all__) == EXPORTED
    assert dir(mentra_nb) == sorted([*EXPORTED, *NOT_BY_STAR])


@pytest.mark.parametrize("name", [*EXPORTED, *NOT_BY_STAR])
def test_every_exported_name_can_be_used(name: str) -> None:
    assert getattr(mentra_nb, name) is not None


def test_a_star_import_hides_no_function_of_python() -> None:
    names: dict[str, Any] = {}
    exec("from mentra_nb import *", names)
    assert not set(names) & set(vars(builtins)) - {"__builtins__", "__name__", "__doc__"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mentra_nb.nothing  # noqa: B018


def test_type_checkers_and_the_lazy_loader_take_each_name_from_the_same_module() -> None:
    """The `TYPE_CHECKING` block is what editors read; `_HOME` and `_MODULES` are what runs."""
    tree = ast.parse(Path(mentra_nb.__file__).read_text(encoding="utf-8"))
    ifs = (node for node in tree.body if isinstance(node, ast.If))
    block = next(node for node in ifs if ast.unparse(node.test) == "TYPE_CHECKING")
    for_checkers = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    loaded = {name: (f"mentra_nb.{module}", name) for name, module in mentra_nb._HOME.items()}
    for name, module in mentra_nb._MODULES.items():
        package, _, last = f"mentra_nb.{module}".rpartition(".")
        loaded[name] = (package, last)
    assert for_checkers == loaded
    own = {"__version__", "load_ipython_extension", "unload_ipython_extension"}
    assert set(dir(mentra_nb)) == set(loaded) | own


def test_all_is_a_literal_that_editors_can_read() -> None:
    tree = ast.parse(Path(mentra_nb.__file__).read_text(encoding="utf-8"))
    assigned = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AugAssign) and "__all__" in ast.unparse(node).partition("=")[0]
    ]
    assert [ast.literal_eval(value) for value in assigned] == [mentra_nb.__all__]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(mentra_nb._MODULES))
def test_an_exported_module_is_there_before_anything_else_was_used(name: str) -> None:
    program = f"import mentra_nb as mn; print(mn.{name}.__name__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == f"mentra_nb.{mentra_nb._MODULES[name]}"


def test_the_help_of_the_package_names_every_function() -> None:
    functions = {name for name in dir(mentra_nb) if inspect.isfunction(getattr(mentra_nb, name))}
    words = set(re.findall(r"\w+", mentra_nb.__doc__ or ""))
    assert {name for name in functions if not name.endswith("load_ipython_extension")} <= words


def test_a_signature_says_what_it_takes_and_not_the_name_of_an_alias() -> None:
    """An alias such as `PermissionScope` would tell nobody what to write."""
    aliases = set()
    for module in pkgutil.walk_packages(mentra_nb.__path__, "mentra_nb."):
        if not any(part in module.name for part in ("postgres", "lake", "notebook")):
            names = vars(importlib.import_module(module.name))
            aliases |= {name for name, value in names.items() if typing.get_args(value) and name[0].isupper()}
    assert "PermissionScope" in aliases
    functions = [value for name in dir(mentra_nb) if inspect.isfunction(value := getattr(mentra_nb, name))]
    methods = [value for value in vars(mentra_nb.Chat).values() if inspect.isfunction(value)]
    for function in [*functions, *methods]:
        if not function.__name__.startswith("_"):
            assert not aliases & set(re.findall(r"\w+", str(inspect.signature(function)))), function


# ---- every type that a signature mentions can be named --------------------------------------------------------------


def every_class() -> dict[str, Any]:
    """Every class and alias by the name it has in the package: some are only imported for type checkers."""
    found: dict[str, Any] = {}
    for module in pkgutil.walk_packages(mentra_nb.__path__, "mentra_nb."):
        if not any(part in module.name for part in ("postgres", "lake", "notebook")):
            names = vars(importlib.import_module(module.name))
            found |= {name: value for name, value in names.items() if inspect.isclass(value) or typing.get_args(value)}
    return found | {"pd": importlib.import_module("pandas")}


def annotated(name: str, exported: Any) -> Iterator[tuple[str, Any]]:
    """What carries annotations: the function itself, or a class with its public methods and properties."""
    if inspect.isroutine(exported):
        yield name, exported
    if inspect.isclass(exported):
        yield name, exported
        for method, value in list(vars(exported).items()):
            function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            is_public = not method.startswith("_") or (method == "__init__" and name not in MADE_BY_THE_RUNTIME)
            if is_public and inspect.isfunction(function):
                yield f"{name}.{method}", function


def classes_in(annotation: Any) -> set[type]:
    """The package's classes anywhere in an annotation."""
    if isinstance(annotation, list | tuple):
        return {each for part in annotation for each in classes_in(part)}
    if parts := typing.get_args(annotation):
        return {each for part in (typing.get_origin(annotation), *parts) for each in classes_in(part)}
    if isinstance(annotation, type) and annotation.__module__.startswith("mentra_nb"):
        return {annotation}
    return set()


def test_every_type_that_a_public_signature_mentions_is_exported_too() -> None:
    known = every_class()
    exported = {name: getattr(mentra_nb, name) for name in dir(mentra_nb)}
    modules = {value.__name__ for value in exported.values() if isinstance(value, ModuleType)}
    missing = {}
    seen = 0
    for name, value in exported.items():
        for where, holder in annotated(name, value):
            for part, annotation in typing.get_type_hints(holder, localns=known).items():
                for mentioned in classes_in(annotation) if part.strip("_") == part else ():
                    seen += 1
                    if not any(mentioned is each for each in exported.values()) and mentioned.__module__ not in modules:
                        missing[f"{mentioned.__module__}.{mentioned.__name__}"] = where
    assert not missing
    assert seen > 100
