"""The files and variables that settings are read from: the user's own, and those that came with the project's folder.

What makes things stricter holds at once, whoever wrote it. Everything else of a project holds once it is trusted; even
then it may not name the key of a known provider, take the name of one, or replace what the user set up.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Set
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from mentra_nb import paths, trust
from mentra_nb.amounts import is_stricter
from mentra_nb.errors import ConfigurationError
from mentra_nb.settings import TABLES, Settings
from mentra_nb.trust import Content

SKILLS = ".mentra/skills"
"""The folder of a project's skills."""
AGENTS = ".mentra/agents"
"""The folder of a project's kinds of subagents."""
DOTENV = ".env"
"""The file of variables that some front ends give to a kernel, before anybody has looked at it."""
MAX_DOTS = 500
"""Dots in a line of a TOML file that is read."""
_OTHER_KEYS = {
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_BEARER_TOKEN_BEDROCK"),
    *("AZURE_API_KEY", "AZURE_OPENAI_API_KEY", "CEREBRAS_API_KEY", "COHERE_API_KEY", "DASHSCOPE_API_KEY"),
    *("DEEPSEEK_API_KEY", "FIREWORKS_API_KEY", "GH_TOKEN", "GITHUB_TOKEN", "GOOGLE_API_KEY", "GROQ_API_KEY"),
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MISTRAL_API_KEY", "MOONSHOT_API_KEY", "NVIDIA_API_KEY"),
    *("OPENAI_ADMIN_KEY", "ANTHROPIC_AUTH_TOKEN", "PERPLEXITY_API_KEY", "REPLICATE_API_TOKEN"),
    *("TOGETHER_API_KEY", "XAI_API_KEY", "ZAI_API_KEY"),
}
"""Keys of well-known services beside the presets."""
_taken_out: dict[str, str] = {}
"""Variables that a project's `.env` had put into the environment of this process."""


def load(
    environ: Mapping[str, str] = os.environ, project: Path | None = None, user_file: Path | None = None
) -> Settings:
    """Return the settings that hold for a project.

    The user's own file is read first, then the variables `MENTRA_*`, which win. A project's files, `[tool.mentra_nb]`
    in `pyproject.toml` and `mentra.toml`, come with the folder: by themselves they can only make things stricter
    (`ask = "always"`, a shorter `ask_timeout`, `wake = false`) or change `stream_hz`. What else they say holds
    once a person has trusted it; until then it is in `Settings.waiting`.

    Args:
        environ: The environment variables.
        project: The project's folder. Default: `paths.project_root()`.
        user_file: The user's own file. Default: `paths.config_file()`.

    Raises:
        ConfigurationError: The user's file or a variable is invalid; the message names it in one sentence.
    """
    settings, root = Settings(), (project or paths.project_root()).resolve()
    environ = _own_variables(settings, root, environ)
    file = user_file if user_file is not None else paths.config_file()
    for name, value in _own_file(settings, file).items():
        settings.change(name, value, str(file))
    for name in Settings.model_fields:
        variable = f"MENTRA_{name.upper()}"
        if name not in TABLES and environ.get(variable):
            settings.change(name, environ[variable], variable)
    _apply(settings, root, environ)
    return settings


def _own_file(settings: Settings, file: Path) -> dict[str, Any]:
    """Return what the user's file says; nothing, with a note, if somebody else could have written it."""
    try:
        raw = trust.read(file)
    except ConfigurationError as error:
        settings.ignore(str(error))
        return {}
    try:
        return _parsed(file, (raw or b"").decode())
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file} cannot be read: {error}") from None


def _own_variables(settings: Settings, root: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables without those that a project's `.env` set and nobody has trusted.

    From the environment of this process these are taken out, as they would also say where the home is.
    """
    known = {**_taken_out, **environ} if environ is os.environ else dict(environ)
    if not any(name.startswith("MENTRA_") for name in known):
        return known
    with settings.noting():
        raw = trust.read(root / DOTENV, root) or b""
        taken = {name: known[name] for name, value in _mentioned(raw) if name in known and _is_from(value, known[name])}
        taken = {name: value for name, value in taken.items() if (name, value) != ("MENTRA_ASK", "always")}
        return _without(settings, root, environ, known, taken)
    return known


def _without(
    settings: Settings, root: Path, environ: Mapping[str, str], known: dict[str, str], taken: dict[str, str]
) -> dict[str, str]:
    """Return the variables without those that `.env` set, unless they are trusted."""
    if not taken:
        return known
    if environ is os.environ:
        _taken_out.update(taken)
        for name in taken:
            os.environ.pop(name, None)
    text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in taken.items())
    content = Content(root, DOTENV, f"its variables {', '.join(taken)} are ignored", text, _digest(text))
    own = {name: value for name, value in known.items() if name not in taken}
    return known if _holds(settings, content, own) else own


def _apply(settings: Settings, root: Path, environ: Mapping[str, str]) -> None:
    """Apply what a project's files say and may, and note in `settings` what does not hold.

    Args:
        settings: Those of the user's file and of the variables.
        root: The project's folder.
        environ: Says what is trusted beside what is remembered.
    """
    for file, said, content in _files(settings, root):
        permitted = dict(_permitted(settings, file, said))
        wanted = {name: value for name, value in permitted.items() if not _made_stricter(settings, file, name, value)}
        if not wanted:
            continue
        content = replace(content, wants=f"its settings {', '.join(wanted)} are ignored")
        if _holds(settings, content, environ):
            for name, value in wanted.items():
                with settings.noting():
                    _set(settings, root, str(file), name, value, environ)
    _offer(settings, "skills", root, root / SKILLS, environ)
    _offer(settings, "agents", root, root / AGENTS, environ)


def _files(settings: Settings, root: Path) -> Iterator[tuple[Path, dict[str, Any], Content]]:
    """Yield each file of settings that there is, what it says, and what there is to trust."""
    file = root / "pyproject.toml"
    try:
        raw = trust.read(file, root)
        table: Any = _parsed(file, (raw or b"").decode())
    except (ConfigurationError, UnicodeDecodeError):  # it is the project's: other tools report its errors
        table = {}
    for key in ("tool", "mentra_nb"):
        table = table.get(key) if isinstance(table, dict) else None
    if isinstance(table, dict) and table:
        with settings.noting():
            text = _text(file, table)
            yield file, table, Content(root, file.name, "", text, _digest(text))
    file = root / "mentra.toml"
    with settings.noting():
        content = trust.content_of(file, root, "")
        if content is not None:
            yield file, _parsed(file, content.text), content


def _parsed(file: Path, text: str) -> dict[str, Any]:
    """Return what a TOML file says. Raises `ConfigurationError`."""
    if any(line.count(".") > MAX_DOTS for line in text.splitlines()):  # a key of many parts takes time by their square
        raise ConfigurationError(f"{file} cannot be read: a line has more than {MAX_DOTS} dots")
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}") from None


def _holds(settings: Settings, content: Content, environ: Mapping[str, str]) -> bool:
    """Return whether content is trusted, and note it among what is or what waits."""
    trusted = trust.is_trusted(content, environ)
    (settings.trusted if trusted else settings.waiting).append(content)
    return trusted


# ---- what no project may set, and what each may --------------------------------------------------------------------


def _permitted(settings: Settings, file: Path, said: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the settings that a project may have, each without the entries that it may not; these are noted."""
    keys, names = _keys(settings), _names()
    for name, value in said.items():
        if name not in type(settings).model_fields:
            settings.ignore(f"{file.name}: there is no setting {_plain(name)}, so it is ignored")
            continue
        if not isinstance(value, dict | list):
            yield name, value
            continue
        entries = value.items() if isinstance(value, dict) else [(str(each), each) for each in value]
        taken = {*names, *known} if isinstance(known := getattr(settings, name), dict) else set[str]()
        refused = {entry: why for entry, each in entries if (why := _refusal(name, entry, each, keys, taken))}
        for entry, why in refused.items():
            settings.ignore(f"{file.name}: {name}.{_plain(entry)} is ignored: {why}")
        if isinstance(value, dict):
            left: Any = {entry: each for entry, each in value.items() if entry not in refused}
        else:
            left = [each for each in value if str(each) not in refused]
        if left or not refused:
            yield name, left


def _refusal(setting: str, entry: str, value: Any, keys: Set[str], taken: Set[str]) -> str | None:
    """Return why no project may have this entry of a table or list of settings; `None` if one may."""
    if setting in ("providers", "aliases", "mcp") and entry in taken:
        return "a project cannot change what a known name stands for"
    if setting == "aliases" and re.search(r"[/:\s]", entry):
        return "a short name is one word"
    if setting == "shell_env":
        named: Any = [value]
    elif isinstance(value, dict):
        named = value.get("pass_env") if setting == "mcp" else [value.get("key_env")]
    else:
        named = None
    found = [each for each in named if str(each).upper() in keys] if isinstance(named, list) else []
    return f"a project may not name {', '.join(found)}, which holds a key of yours" if found else None


def _plain(name: str) -> str:
    return name if re.fullmatch(r"[\w-]{1,80}", name) else repr(name[:80])


def _keys(settings: Settings) -> set[str]:
    """Return the variables with keys of known providers and of those of the user."""
    from mentra_nb.providers.registry import KEYS

    own = {each.key_env for each in settings.providers.values() if each.key_env}
    return {name.upper() for name in (*KEYS, *_OTHER_KEYS, *own)}


def _names() -> set[str]:
    from mentra_nb.providers.registry import EMBEDDED, PRESETS

    return {*PRESETS, *EMBEDDED}


def _made_stricter(settings: Settings, file: Path, name: str, value: Any) -> bool:
    """Set what is harmless enough to be taken from a file that nobody has looked at. Returns whether it was."""
    match name:
        case "ask":
            harmless = bool(value == "always")
        case "ask_timeout":
            harmless = isinstance(value, int | float) and bool(value <= settings.ask_timeout)
        case "wake":
            harmless = value is False
        case "stream_hz":
            harmless = not settings.source(name).startswith("MENTRA_")
        case "budget_turn" | "budget_session" | "budget_day" | "budget_project" | "budget_month":
            harmless = is_stricter(value, getattr(settings, name))
        case _:
            harmless = False
    if harmless:
        with settings.noting():
            settings.change(name, value, str(file))
    return harmless


def _set(settings: Settings, root: Path, file: str, name: str, value: Any, environ: Mapping[str, str]) -> None:
    """Set what a trusted file says. Lists and tables are added to those of the user; a variable wins over one value.

    Raises:
        ConfigurationError: The value is not valid; nothing is changed.
    """
    known = getattr(settings, name)
    if isinstance(known, tuple) and not isinstance(value, list):
        raise ConfigurationError(f"{file}: {name} must be a list")
    if name in ("skills", "agents"):
        for folder in value:
            _offer(settings, name, root, root / Path(str(folder)).expanduser(), environ)
    elif isinstance(known, tuple):
        settings.change(name, [*known, *(each for each in value if each not in known)], file)
    elif isinstance(known, dict):
        settings.change(name, {**value, **known} if isinstance(value, dict) else value, file)
    elif not settings.source(name).startswith("MENTRA_"):
        settings.change(name, value, file)


def _offer(settings: Settings, name: str, root: Path, folder: Path, environ: Mapping[str, str]) -> None:
    """Add a folder in the project to the setting `skills` or `agents`, if what is in it is trusted."""
    with settings.noting():
        if not str(folder).isprintable() or not folder.resolve().is_relative_to(root.resolve()):
            raise ConfigurationError(f"{str(folder)!r} is not offered: a project's {name} must be in its folder")
        content = trust.content_of_folder(folder, root, f"its {name} are not offered")
        if content is not None and content.name in {each.name for each in (*settings.trusted, *settings.waiting)}:
            return
        if content is not None and content.text and _holds(settings, content, environ):
            settings.change(name, [*map(str, getattr(settings, name)), str(folder)], str(folder))


# ---- the text of a table --------------------------------------------------------------------------------------------


def _text(file: Path, table: Mapping[str, Any]) -> str:
    try:
        return "".join(f"{line}\n" for line in _flat(table))
    except RecursionError:
        raise ConfigurationError(f"{file} cannot be read: its tables are nested too deeply") from None


def _flat(table: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Yield a line for each value of a table, with the names of the tables it is in."""
    for key, value in table.items():
        name = f"{above}{key if re.fullmatch(r'[A-Za-z0-9_-]+', key) else json.dumps(key)}"
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield f"{name} = {json.dumps(value, ensure_ascii=False, default=repr)}"


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _mentioned(raw: bytes) -> Iterator[tuple[str, str]]:
    """Yield the variables `MENTRA_…` in the text of a `.env`, with what stands behind the sign."""
    for line in raw.decode("utf-8", "replace").splitlines():
        name, sign, value = line.strip().removeprefix("export ").partition("=")
        if sign and re.fullmatch(r"MENTRA_\w+", name := name.strip()):
            yield name, value.strip()


def _is_from(written: str, value: str) -> bool:
    """Return whether a variable has the value that a `.env` gives it; also where that depends on how it is read."""
    if set(written) & set("$\\`"):
        return True
    quoted = written[1:].partition(written[0])[0] if written[:1] in ("'", '"') else None
    return value in (written, quoted, written.partition(" #")[0].rstrip(), written.partition("#")[0].rstrip())
