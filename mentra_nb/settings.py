"""The settings and their sources: the default, the user's file, `MENTRA_*`, `%config Mentra`, or the project."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, ValidationError, field_validator

from mentra_nb import paths
from mentra_nb.errors import ConfigurationError


class Endpoint(BaseModel):
    """A custom server: `[providers.NAME]` in the user's `config.toml`.

    `key_env` names the environment variable with its key. The key is sent unchanged in `auth_header`; without
    `auth_header` it is sent as the wire usually sends it. `headers` are sent with every request and never shown.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    base_url: str
    wire: Literal["responses", "chat_completions", "anthropic_messages", "gemini_generate_content"] = "chat_completions"
    key_env: str | None = None
    auth_header: str | None = None
    headers: dict[str, SecretStr] = Field(default_factory=dict)


class Settings(BaseModel):
    """The settings in force. An assigned value is checked; `change` also stores where it came from."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", validate_assignment=True)

    model: str | None = Field(default=None, description="Model for a turn that names none, as provider/model.")
    ask: Literal["always", "changes", "rules"] = Field(
        default="changes",
        description="Which tool calls ask a person: all (always), those not read-only (changes), none (rules).",
    )
    ask_timeout: float = Field(
        default=600.0, gt=0, description="Seconds a question stays open; then it counts as denied."
    )
    log_text: Literal["none", "preview", "full"] = Field(
        default="preview", description="How much of prompts and tool outputs the record keeps."
    )
    redact: tuple[str, ...] = Field(
        default=(), description="Regular expressions for text the record must not keep; in MENTRA_REDACT one per line."
    )
    stream_hz: float = Field(default=12.0, ge=1, le=20, description="Screen updates per second of a streamed answer.")
    nested_asyncio: bool = Field(
        default=False,
        description="Apply nest-asyncio to the whole process (not on ipykernel 7, where it loses queued cells).",
    )
    providers: dict[str, Endpoint] = Field(default_factory=dict, description="Custom servers, by name.")
    aliases: dict[str, str] = Field(default_factory=dict, description="Short names for models.")

    @field_validator("redact", mode="before")
    @classmethod
    def _expressions(cls, value: Any) -> Any:
        patterns = value.split("\n") if isinstance(value, str) else value
        patterns = [pattern for pattern in patterns if pattern] if isinstance(patterns, list | tuple) else patterns
        if not isinstance(patterns, list) or not patterns:
            return patterns
        import regex  # as in `record.write.own`

        for pattern in patterns:
            try:
                regex.compile(pattern)
            except (regex.error, TypeError, RecursionError) as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        return patterns

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)
    _ignored: list[str] = PrivateAttr(default_factory=list)

    @property
    def ignored(self) -> list[str]:
        """What a project's files say that does not hold, a sentence for each file."""
        return self._ignored

    def source(self, name: str) -> str:
        """Return where the value of a setting came from: `default`, a file, a variable, or the `source` of `change`."""
        return self._sources.get(name, "default")

    def change(self, name: str, value: Any, source: str) -> None:
        """Set one value and its source.

        Raises:
            ConfigurationError: The setting is unknown or the value is invalid. Nothing is changed.
        """
        if name not in type(self).model_fields:
            raise ConfigurationError(
                f"{source}: there is no setting '{name}'; known are {', '.join(type(self).model_fields)}"
            )
        try:
            setattr(self, name, value)
        except ValidationError as error:
            raise ConfigurationError(f"{source}: {_problem(error)}") from None
        self._sources[name] = source


def _problem(error: ValidationError) -> str:
    """Return what is wrong with a setting, without the values of headers, which may be secret."""
    found = error.errors(include_url=False)
    first = next((each for each in found if each["type"] == "extra_forbidden"), found[0])
    place, key = list(map(str, first["loc"])), str(first["loc"][-1])
    if first["type"] in ("extra_forbidden", "missing"):
        what = f"there is no key '{key}'" if first["type"] == "extra_forbidden" else f"{key} is missing"
        return f"[{'.'.join(place[:-1])}]: {what}; the keys are {', '.join(Endpoint.model_fields)}"
    if place[0] == "providers" and len(place) == 2:
        return f"{'.'.join(place)} must be a table [providers.{key}] with the keys {', '.join(Endpoint.model_fields)}"
    value = "" if "headers" in place or isinstance(first["input"], dict) else f" = {first['input']!r}"
    return f"{'.'.join(place)}{value}: {first['msg'].removeprefix('Value error, ')}"


def load(
    environ: Mapping[str, str] = os.environ, project: Path | None = None, user_file: Path | None = None
) -> Settings:
    """Return the settings that hold for a project.

    The user's own file is read first, then the variables `MENTRA_*`, which win. A project's files, `[tool.mentra_nb]`
    in `pyproject.toml` and `mentra.toml`, come with the folder and are not trusted: they can only make things stricter
    (`ask = "always"`, a shorter `ask_timeout`) or change `stream_hz`. What else they say is listed in
    `Settings.ignored`.

    Args:
        environ: The environment variables.
        project: The project's folder. Default: `paths.project_root()`.
        user_file: The user's own file. Default: `paths.config_file()`.

    Raises:
        ConfigurationError: The user's file or a variable is invalid; the message names it in one sentence.
    """
    settings = Settings()
    file = user_file if user_file is not None else paths.config_file()
    for name, value in _read(file).items():
        settings.change(name, value, str(file))
    for name in Settings.model_fields:
        variable = f"MENTRA_{name.upper()}"
        if name not in ("providers", "aliases") and environ.get(variable):
            settings.change(name, environ[variable], variable)
    root = project or paths.project_root()
    for path, table in ((root / "pyproject.toml", ("tool", "mentra_nb")), (root / "mentra.toml", ())):
        _narrow(settings, path, table)
    return settings


def _narrow(settings: Settings, file: Path, table: tuple[str, ...]) -> None:
    """Apply what a project's file may say, and note what it may not."""
    try:
        content = _read(file, table)
    except ConfigurationError as error:
        settings.ignored.append(str(error))
        return
    refused = []
    for name, value in content.items():
        if _may_come_with_a_folder(settings, name, value):
            try:
                settings.change(name, value, str(file))
                continue
            except ConfigurationError:
                pass
        refused.append(name)
    if refused:
        names = ", ".join(name if name.isidentifier() else repr(name) for name in refused)
        settings.ignored.append(
            f"{file} came with this folder, so its settings {names} are ignored; put yours in {paths.config_file()}"
        )


def _may_come_with_a_folder(settings: Settings, name: str, value: Any) -> bool:
    """Return whether a setting is harmless enough to be taken from a file that nobody has looked at."""
    match name:
        case "ask":
            return bool(value == "always")
        case "ask_timeout":
            return isinstance(value, int | float) and bool(value <= settings.ask_timeout)
        case "stream_hz":
            return settings.source("stream_hz") == "default" or str(settings.source("stream_hz")).endswith(".toml")
    return False


def _read(file: Path, table: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a TOML file's content, or one table of it; empty without such a file or if it belongs to somebody else."""
    try:
        if hasattr(os, "geteuid") and file.stat().st_uid not in (os.geteuid(), 0):
            return {}
        content: Any = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        if table:  # pyproject.toml belongs to the project: other tools report its errors
            return {}
        raise ConfigurationError(f"{file} cannot be read: {error}") from None
    for key in table:
        content = content.get(key, {}) if isinstance(content, dict) else {}
    return content if isinstance(content, dict) else {}
