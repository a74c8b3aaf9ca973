"""The checks behind `%mentra check`: what works, and how to fix what does not. Asks only a server on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mentra_nb.chat.catalog import answers
from mentra_nb.chat.models import choose
from mentra_nb.errors import ConfigurationError, MentraError
from mentra_nb.providers.registry import EMBEDDED, KEYS, PRESETS
from mentra_nb.record.write.health import RecordHealth
from mentra_nb.words import counted

if TYPE_CHECKING:
    from mentra_nb.chat.engine import Engine

LITTLE_DISK = 200 << 20
"""Free bytes below which the disk check fails."""
MUCH_WAITING = 256 << 20
"""Bytes of complete segments above which the compaction check fails."""


@dataclass(frozen=True)
class Finding:
    """The result of a check. `ok` is `None` for information only; `fix` says what to do unless it is `True`."""

    check: str
    ok: bool | None
    detail: str
    fix: str = ""


def findings(engine: Engine, environ: Mapping[str, str] = os.environ) -> list[Finding]:
    """Return the checks of the model, the keys (present or absent, never shown), the state store and the record."""
    model = _answering(engine, model_finding(engine, environ))
    return [model, _keys(environ), _client(), sandbox_finding(engine), *_rules(), _store(engine), *_record(engine)]


def model_finding(engine: Engine, environ: Mapping[str, str] = os.environ) -> Finding:
    """Return which model a turn asks that names none, without a request."""
    try:
        choice = choose(None, engine.settings, environ, registered=engine.registered())
    except ConfigurationError as error:
        return Finding("model", False, str(error), "%mentra model provider/NAME")
    if choice.provider == "demo":
        why = ": no model is set up" if choice.notice else ""
        return Finding("model", None, f"the built-in demo{why}", "set a key, or name one with -m")
    return Finding("model", True, f"{choice.provider}/{choice.model or 'its newest'}")


def _answering(engine: Engine, model: Finding) -> Finding:
    """Return the finding about the model with what its server says. Only one on this machine is asked."""
    provider = model.detail.partition("/")[0]
    if model.ok is not True or provider in EMBEDDED:
        return model
    answered = engine.call(answers, engine, provider)
    if answered is False:
        return replace(
            model,
            ok=False,
            detail=f"{model.detail}: its server does not answer",
            fix="start the server, or take another model: %mentra models",
        )
    said = ": not asked" if answered is None else ": its server answers"
    return replace(model, detail=f"{model.detail}{said}")


def _keys(environ: Mapping[str, str]) -> Finding:
    """Return which keys there are. Servers and local models need none."""
    there = [preset.key_env for preset in PRESETS.values() if preset.key_env and environ.get(preset.key_env)]
    if there:
        return Finding("keys", True, f"present: {', '.join(there)}")
    return Finding("keys", None, "none, and servers on this machine need none", f"set {' or '.join(KEYS)}")


def _client() -> Finding:
    from mentra_nb.providers.http import CLIENT  # loads the HTTP client

    return Finding("HTTP client", True, CLIENT)


def sandbox_finding(engine: Engine) -> Finding:
    """Return whether commands run in a sandbox first, and if not, why."""
    from mentra_nb.sandbox.fenced import fence_problem, workspace_problem

    if engine.settings.sandbox == "off":
        return Finding("sandbox", None, "off: commands are asked about beforehand", "%config Mentra.sandbox = 'auto'")
    problem = fence_problem() or workspace_problem(Path.cwd())
    if problem is not None:
        return Finding("sandbox", None, f"{problem}; commands are asked about beforehand")
    return Finding(
        "sandbox", True, f"commands run in a view of {Path.cwd()} first; what they change there is asked about"
    )


def _rules() -> Iterator[Finding]:
    """Yield what keeps rules for commands from working as elsewhere, if anything does."""
    from mentra_nb.permission import rules

    if rules.IN_CMD:
        detail = "no wildcard covers a line of cmd, since it cannot be split into commands: only its exact text does"
        yield Finding("rules for shell", None, detail, "mn.allow('shell', 'THE WHOLE LINE')")


def _store(engine: Engine) -> Finding:
    store = engine.runtime.store
    try:
        sessions = engine.call(store.list_sessions)
        leases = engine.call(store.list_leases)
    except MentraError as error:
        return Finding("state store", False, str(error), "set MENTRA_HOME to a folder you can write to")
    elsewhere = len({lease.holder.runtime_id for lease in leases} - {engine.runtime.id})
    where = getattr(store, "path", None) or repr(store)
    others = f", {counted(elsewhere, 'other kernel')} at work" if elsewhere else ""
    return Finding("state store", True, f"{where}: {counted(len(sessions), 'conversation')}{others}")


def _record(engine: Engine) -> Iterator[Finding]:
    audit = engine.runtime.audit
    health: Callable[[], RecordHealth] | None = getattr(audit, "health", None)
    if health is None:
        yield Finding("record", None, f"{type(audit).__name__}: not kept in a folder")
        return
    found = health()
    lost, error = getattr(found, "lost", 0), getattr(found, "last_error", None)
    size = found.writing_bytes + found.waiting_bytes + found.parquet_bytes
    there = f"{counted(found.parquet, 'Parquet file')}, {counted(found.writing + found.waiting, 'journal')}"
    yield Finding(
        "record",
        not lost,
        f"{found.folder}: {there}, {size / 1e6:.1f} MB"
        + (f"; {counted(lost, 'event')} could not be written ({error})" if lost else ""),
        "free some disk space, or set MENTRA_HOME elsewhere" if lost else "",
    )
    links = found.chain_links
    broken = "" if found.chain_sound else "mn.verify() says where"
    yield Finding("record's chain", found.chain_sound, counted(links, "sealed segment"), broken)
    if found.waiting_bytes > MUCH_WAITING:
        yield Finding(
            "compaction", False, f"{found.waiting_bytes / 1e6:.0f} MB wait", "close other kernels, or mn.usage()"
        )
    if found.foreign:
        yield Finding("foreign files", False, ", ".join(found.foreign[:5]), "move them elsewhere: they are not read")
    if found.disk_free is not None:
        enough = found.disk_free >= LITTLE_DISK
        yield Finding("disk", enough, f"{found.disk_free / 1e9:.1f} GB free", "" if enough else "free some disk space")
