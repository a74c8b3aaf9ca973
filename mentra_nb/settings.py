"""The settings and their sources. The files and variables that they are read from are in `setting_files`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from mentra_nb.amounts import PERIODS, Period, checked
from mentra_nb.errors import ConfigurationError
from mentra_nb.trust import Content


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

    @property
    def address(self) -> str:
        """Where it is."""
        return self.base_url


class McpServer(BaseModel):
    """An MCP server: `[mcp.NAME]` in the user's `config.toml`. Either a program to start, or an address.

    A program gets `HOME`, `LOGNAME`, `PATH`, `SHELL`, `TERM`, `USER`, the variables that `pass_env` names, and `env`.
    `headers` are sent with every request and never shown; to another machine only over https, unless
    `allow_plaintext_credentials`.

    Example:
        >>> mn.McpServer(command="mcp-server-time").url is None
        True
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    command: str | None = None
    args: tuple[str, ...] = ()
    env: dict[str, SecretStr] = Field(default_factory=dict)
    pass_env: tuple[str, ...] = ()
    cwd: Path | None = None
    url: str | None = None
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    allow_plaintext_credentials: bool = False

    @property
    def address(self) -> str:
        """Its address, or its command line without what looks like a secret."""
        from mentra_nb.secrets.mask import mask_secrets  # loads expressions

        return mask_secrets(self.url or " ".join([self.command or "", *self.args]))

    def environment(self) -> dict[str, str]:
        """Return the variables that the program gets beside the usual ones."""
        passed = {name: os.environ[name] for name in self.pass_env if name in os.environ}
        return passed | {name: value.get_secret_value() for name, value in self.env.items()}

    @model_validator(mode="after")
    def _one_way(self) -> McpServer:
        if (self.command is None) == (self.url is None):
            raise ValueError("give either command or url")
        if self.url is not None:
            self._check_address(self.url)
        return self

    def _check_address(self, url: str) -> None:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme not in ("http", "https") or not host or parts.username or parts.password:
            raise ValueError("url must begin with http:// or https:// and name a host, without a user or password")
        if parts.path.rstrip("/").endswith("/sse"):
            raise ValueError(
                "the old transport HTTP+SSE is not supported: give the server's address for streamable HTTP, often /mcp"
            )
        plain = parts.scheme == "http" and host not in ("127.0.0.1", "localhost", "::1")
        if plain and self.headers and not self.allow_plaintext_credentials:
            raise ValueError("headers would be sent to another machine in plain text: use https")


TABLES = ("providers", "aliases", "mcp")
"""The settings that are tables: they are set in a file only."""


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
    sandbox: Literal["auto", "off"] = Field(
        default="auto",
        description="Whether a command runs in a sandbox first, so that what it did there is asked about (auto), "
        "or is asked about beforehand (off).",
    )
    shell_env: tuple[str, ...] = Field(
        default=(),
        description="Environment variables that commands get besides the usual ones, such as GH_TOKEN; "
        "in MENTRA_SHELL_ENV separated by blanks.",
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
    wake: bool = Field(
        default=True,
        description="Whether a turn begins by itself when a background command ends, where a person is at the page.",
    )
    tasks: bool = Field(
        default=False,
        description="Whether the model is offered a board of tasks, which the cell shows.",
    )
    memory: Literal["off", "agent", "project", "global"] = Field(
        default="off",
        description="Whether turns are remembered, and for whom: this conversation (agent), those of the project, all.",
    )
    subagents: bool = Field(default=False, description="Whether the model may give tasks to subagents.")
    teams: bool = Field(default=False, description="Whether the model may make teams of agents.")
    team_claims: bool = Field(
        default=False, description="Whether teammates without work claim tasks of the board that nobody has."
    )
    team_idle_timeout: float | None = Field(
        default=None, gt=0, description="Seconds after which a teammate without work shuts down; not set: never."
    )
    team_members: int = Field(default=20, ge=1, description="Teammates that work in a team at the same time, at most.")
    agents: tuple[Path, ...] = Field(
        default=(), description="Folders with kinds of subagents to offer; in MENTRA_AGENTS separated as in PATH."
    )
    context_window: int | None = Field(
        default=None, ge=1_000, description="Tokens that the model's context holds, where that is not known."
    )
    keep_answers: bool = Field(
        default=False,
        description="Whether a cell whose question did not change shows its stored answer, as with --keep.",
    )
    instructions: str = Field(
        default="AGENTS.md",
        description="Name of the file with notes of the project that the model is given, as a quotation; empty: none.",
    )
    skills: tuple[Path, ...] = Field(
        default=(), description="Folders of skills to offer; in MENTRA_SKILLS separated as in PATH."
    )
    tools: tuple[str, ...] = Field(
        default=(), description="Tools of installed packages to offer, by name; in MENTRA_TOOLS separated by commas."
    )
    tool_profile: tuple[str, ...] = Field(
        default=(),
        description="Tools that the model is offered, by name, * for any characters; -NAME offers all but that; "
        "empty: all; in MENTRA_TOOL_PROFILE separated by commas.",
    )
    reviewer: str | None = Field(
        default=None,
        description="Which model advises on a question before you decide: model (that of the turn) or provider/model.",
    )
    budget_turn: str | None = Field(
        default=None, description="The most a turn may use, such as 0.50usd, 20k tokens, 5 tools, 10min."
    )
    budget_session: str | None = Field(default=None, description="The most a conversation may use; amounts as above.")
    budget_day: str | None = Field(default=None, description="The most all turns of a day may use, by local time.")
    budget_project: str | None = Field(default=None, description="The most all turns in a project may use together.")
    budget_month: str | None = Field(default=None, description="The most all turns of a month may use, by local time.")
    providers: dict[str, Endpoint] = Field(default_factory=dict, description="Custom servers, by name.")
    aliases: dict[str, str] = Field(default_factory=dict, description="Short names for models.")
    mcp: dict[str, McpServer] = Field(default_factory=dict, description="MCP servers, by name.")

    @field_validator(*(f"budget_{period}" for period in PERIODS), mode="before")
    @classmethod
    def _amounts(cls, value: Any) -> Any:
        return checked(value)

    @field_validator("mcp")
    @classmethod
    def _server_names(cls, servers: dict[str, McpServer]) -> dict[str, McpServer]:
        for name in servers:
            check_server_name(name)
        return servers

    @field_validator("shell_env", mode="before")
    @classmethod
    def _variables(cls, value: Any) -> Any:
        names = value.split() if isinstance(value, str) else value
        for name in names if isinstance(names, list | tuple) else ():
            if not (isinstance(name, str) and name.isidentifier()):
                raise ValueError(f"{name!r} is not the name of a variable")
        return names

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

    @field_validator("skills", "agents", mode="before")
    @classmethod
    def _folders(cls, value: Any) -> Any:
        folders = value.split(os.pathsep) if isinstance(value, str) else value
        return [Path(each).expanduser() for each in folders if each] if isinstance(folders, list | tuple) else folders

    @field_validator("tools", "tool_profile", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        return [each.strip() for each in value.split(",") if each.strip()] if isinstance(value, str) else value

    @field_validator("tool_profile")
    @classmethod
    def _profile(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not re.fullmatch(r"-?[\w*][\w*-]*", name, re.ASCII):
                raise ValueError(f"{name!r} is not the name of a tool, nor one after '-'")
        return names

    def budgets(self) -> dict[Period, str]:
        """Return the budgets that are set, by their period."""
        values: dict[Period, str | None] = {
            "turn": self.budget_turn,
            "session": self.budget_session,
            "day": self.budget_day,
            "project": self.budget_project,
            "month": self.budget_month,
        }
        return {period: value for period, value in values.items() if value}

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)
    _problems: list[str] = PrivateAttr(default_factory=list)
    _trusted: list[Content] = PrivateAttr(default_factory=list)
    _waiting: list[Content] = PrivateAttr(default_factory=list)

    @property
    def trusted(self) -> list[Content]:
        """What came with the project's folder and holds, because a person has trusted it."""
        return self._trusted

    @property
    def waiting(self) -> list[Content]:
        """What came with the project's folder and does not hold until it is trusted."""
        return self._waiting

    def ignored(self, *, person: bool = True) -> list[str]:
        """Return what does not hold of the files that were read, a line each; `person`: whether one may be there."""
        return [*(content.line(person=person) for content in self._waiting), *self._problems]

    @property
    def problems(self) -> list[str]:
        """What does not hold whatever is trusted, a sentence each."""
        return self._problems

    def ignore(self, problem: str) -> None:
        """Note a sentence about something that does not hold, whatever is trusted."""
        self._problems.append(problem)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note a `ConfigurationError` instead of raising it."""
        try:
            yield
        except ConfigurationError as error:
            self.ignore(str(error))

    def source(self, name: str) -> str:
        """Return where the value of a setting came from: `default`, a file, a variable, or the `source` of `change`."""
        return self._sources.get(name, "default")

    def take_over(self, loaded: Settings) -> None:
        """Take the settings that were read anew, except for those that were set in this process."""
        for name in type(self).model_fields:
            if not self.source(name).startswith(("%", "mn.")):
                setattr(self, name, getattr(loaded, name))
                self._sources[name] = loaded.source(name)
        self._problems, self._trusted, self._waiting = loaded._problems, loaded._trusted, loaded._waiting

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


def check_server_name(name: str) -> None:
    """Raise `ValueError` if an MCP server cannot have this name, which is a part of the names of its tools."""
    if not re.fullmatch(r"[A-Za-z0-9]+(?:[_-][A-Za-z0-9]+)*", name) or len(name) > 32:
        raise ValueError(f"{name!r} cannot be the name of a server: use up to 32 letters, digits, and single - or _")


def _problem(error: ValidationError) -> str:
    """Return what is wrong with a setting, without the values of headers and variables, which may be secret."""
    found = error.errors(include_url=False)
    first = next((each for each in found if each["type"] == "extra_forbidden"), found[0])
    place, key = list(map(str, first["loc"])), str(first["loc"][-1])
    keys = ", ".join((McpServer if place[0] == "mcp" else Endpoint).model_fields)
    if first["type"] in ("extra_forbidden", "missing"):
        what = f"there is no key '{key}'" if first["type"] == "extra_forbidden" else f"{key} is missing"
        return f"[{'.'.join(place[:-1])}]: {what}; the keys are {keys}"
    message = first["msg"].removeprefix("Value error, ")
    if place[0] in ("providers", "mcp") and len(place) == 2:
        if first["type"] == "value_error":
            return f"[{'.'.join(place)}]: {message}"
        return f"{'.'.join(place)} must be a table [{place[0]}.{key}] with the keys {keys}"
    hidden = {"headers", "env"} & set(place) or isinstance(first["input"], dict)
    value = "" if hidden else f" = {first['input']!r}"
    return f"{'.'.join(place)}{value}: {message}"
