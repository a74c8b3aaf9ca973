"""The magics `%mentra` and `%%mentra`: parse a line, then run its subcommand or ask the model."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand
from traitlets import Bool, Enum, Float, Int, List, TraitError, TraitType, Unicode, validate
from traitlets.config import Config

from mentra_nb.errors import ConfigurationError, MentraError
from mentra_nb.notebook import kernel
from mentra_nb.notebook.commands.cells import put_code
from mentra_nb.notebook.commands.command import Context
from mentra_nb.notebook.commands.help import help_text
from mentra_nb.notebook.commands.table import COMMANDS, OPTIONS
from mentra_nb.notebook.grammar import Parsed, parse
from mentra_nb.notebook.output import show_value
from mentra_nb.notebook.typed_as import named_type
from mentra_nb.settings import TABLES, Settings

if TYPE_CHECKING:
    from mentra_nb.chat.reply import Reply
    from mentra_nb.chat.turn import RunningTurn
    from mentra_nb.notebook.references.tokens import Found

SETTABLE = tuple(name for name in Settings.model_fields if name not in TABLES)
"""The settings `%config Mentra` can change."""
OFFERING = (
    *("skills", "tools", "tasks", "memory", "subagents", "teams", "agents"),
    *("team_claims", "team_idle_timeout", "team_members"),
)
"""Those that change what conversations are offered, or how that works."""


def _trait(name: str) -> TraitType[Any, Any]:
    """Return the trait of a setting: same type, default, choices and description."""
    field = Settings.model_fields[name]
    kind, default, text = field.annotation, field.default, field.description or ""
    trait: TraitType[Any, Any]
    if get_origin(kind) is Literal:
        trait = Enum(list(get_args(kind)), default, help=text)
    elif get_origin(kind) is tuple:
        trait = List(Unicode(), list(default), help=text)
    elif kind is bool:
        trait = Bool(default, help=text)
    elif kind in (float, int):
        trait = (Float if kind is float else Int)(default, help=text)
    elif kind in (float | None, int | None):
        trait = (Int if kind == int | None else Float)(default, allow_none=True, help=text)
    else:
        trait = Unicode(default, allow_none=True, help=text)
    return trait.tag(config=True)


@magics_class
class Mentra(Magics):
    """Settings of the notebook's agent. `%config Mentra.model = "ollama/qwen3"` sets one."""

    model = _trait("model")
    ask = _trait("ask")
    ask_timeout = _trait("ask_timeout")
    sandbox = _trait("sandbox")
    shell_env = _trait("shell_env")
    log_text = _trait("log_text")
    redact = _trait("redact")
    stream_hz = _trait("stream_hz")
    nested_asyncio = _trait("nested_asyncio")
    wake = _trait("wake")
    tasks = _trait("tasks")
    memory = _trait("memory")
    subagents = _trait("subagents")
    teams = _trait("teams")
    team_claims = _trait("team_claims")
    team_idle_timeout = _trait("team_idle_timeout")
    team_members = _trait("team_members")
    agents = _trait("agents")
    context_window = _trait("context_window")
    keep_answers = _trait("keep_answers")
    instructions = _trait("instructions")
    skills = _trait("skills")
    tools = _trait("tools")
    tool_profile = _trait("tool_profile")
    reviewer = _trait("reviewer")
    budget_turn = _trait("budget_turn")
    budget_session = _trait("budget_session")
    budget_day = _trait("budget_day")
    budget_project = _trait("budget_project")
    budget_month = _trait("budget_month")
    _loading = False

    def __init__(self, shell: Any = None, **kwargs: Any) -> None:
        self._loading = True
        super().__init__(shell, **kwargs)
        self._loading = False

    def _load_config(self, cfg: Any, section_names: Any = None, traits: Any = None) -> None:
        """Take over values from IPython's configuration. While loading, a bad one is left out with a message."""
        if not self._loading:
            from mentra_nb.chat.engine import engine

            # A trait takes no value equal to its own; the setting may be another by a file, a variable or `connect`.
            for name in SETTABLE:
                value = getattr(engine().settings, name)
                self._trait_values[name] = list(map(str, value)) if isinstance(value, tuple) else value
            super()._load_config(cfg, section_names, traits)
            return
        for name, value in self._find_my_config(cfg).items():
            try:
                super()._load_config(Config({type(self).__name__: {name: value}}), section_names, traits)
            except TraitError as error:
                print(f"Mentra.{name} = {value!r} is ignored: {error}", file=sys.stderr)  # noqa: T201

    @validate(*SETTABLE)
    def _set(self, proposal: Any) -> Any:
        from mentra_nb.chat.engine import engine

        name, value = proposal["trait"].name, proposal["value"]
        try:
            if name == "nested_asyncio" and value:
                apply_nest_asyncio()
            if name == "model" and value and not self._loading:
                engine().set_model(value, "%config Mentra")
            else:
                engine().settings.change(name, value, "%config Mentra")
        except MentraError as error:
            raise TraitError(str(error)) from None  # the only error after which traitlets restores the old value
        if name in ("log_text", "redact"):
            setattr(engine().runtime.audit, name, value)  # the engine's is a Journal
        if name in OFFERING:
            engine().offer_settings()
        return value

    @no_var_expand
    @line_cell_magic
    def mentra(self, line: str, cell: str | None = None) -> Any:
        """Ask a model, or manage the conversation. See `%mentra help`."""
        began, parsed, names = time.monotonic(), parse(line, cell), self._namespace()
        if parsed.command is not None:
            return parsed.command.run(Context(names, partial(show, names=names)), parsed.words)
        if parsed.map is not None:
            from mentra_nb.notebook.mapping import map_rows

            return map_rows(parsed, names)
        from mentra_nb.chat.budgets import limits_of
        from mentra_nb.chat.engine import engine
        from mentra_nb.chat.forking import conversation_for

        tools = [self._function(name) for name in parsed.tool]
        chat = conversation_for(parsed.session, new=parsed.new, fork=parsed.fork, at=parsed.at)
        cell_run = kernel.running_cell()
        limits = limits_of(chat, parsed.budget, plan=parsed.plan, without_tools=parsed.no_tools)
        how: dict[str, Any] = {"model": parsed.model, "tools": tools, "limits": limits, "origin": cell_run}
        if parsed.as_ is not None:
            how["as_"] = named_type(parsed.as_, names)
        asked = find_references(names, parsed.prompt, parsed.include)
        if parsed.dry:
            from mentra_nb.chat.preview import dry_run

            dry: dict[str, Any] = {"model": parsed.model, "tools": tools, "notes": asked.notes, "plan": parsed.plan}
            return dry_run(chat, asked.prompt, asked.references, **dry)
        if (parsed.keep or engine().settings.keep_answers) and not (parsed.fresh or parsed.at):
            from mentra_nb.notebook.kept import show_kept

            if (kept := show_kept(chat, asked, parsed.model, cell_run, quiet=parsed.quiet)) is not None:
                return self._value(kept, parsed, cell, names)
        how["replaces"] = not parsed.more and kernel.cell_id() is not None
        behind = parsed.bg and kernel.screen() == "page" and not kernel.is_captured()
        turn = chat.start(asked.prompt, *asked.references, waits=not behind, in_background=behind, **how)
        for note in asked.notes:
            turn.notice(note)
        if behind and (place := turn.plan.place) is not None and place.can_show:
            place.show(turn)
            return None
        reply = show(turn, names, quiet=parsed.quiet, verbose=parsed.verbose, since=began)
        return self._value(reply, parsed, cell, names)

    mentra.__doc__ = help_text(COMMANDS, OPTIONS)  # what `%mentra?` shows

    def _value(self, reply: Reply, parsed: Parsed, cell: str | None, names: dict[str, Any]) -> Reply | None:
        """Store a reply that was shown, and return the value of the line; `None` where it would be shown again."""
        names["_mentra"] = reply
        if parsed.code:
            put_code(reply)
        if parsed.out is not None:
            names[parsed.out] = reply
        if cell is None and not parsed.out and not self._is_shown_by_the_terminal():
            return reply
        if parsed.as_ is not None:
            show_value(reply)
        return None

    def _is_shown_by_the_terminal(self) -> bool:
        """Return whether IPython at a terminal would show the value of this line, which has just been streamed.

        It writes `Out[n]:` before it asks a value how it is shown.
        """
        if kernel.screen() != "terminal":
            return False
        assert self.shell is not None  # IPython makes a Magics object with its shell
        history: Any = self.shell.history_manager
        *_, raw = history.input_hist_raw
        return str(raw).lstrip().startswith("%mentra")

    def _namespace(self) -> dict[str, Any]:
        assert self.shell is not None  # IPython makes a Magics object with its shell
        namespace: dict[str, Any] = self.shell.user_ns
        return namespace

    def _function(self, name: str) -> Callable[..., Any]:
        """Return the function or tool of that name in the notebook. Raises `ConfigurationError`."""
        from mentra_nb.tools.tool import Tool

        found = self._namespace().get(name)
        if found is None:
            raise ConfigurationError(
                f"there is no '{name}' in this notebook to use as a tool: define the function first"
            )
        if not callable(found) and not isinstance(found, Tool):
            raise ConfigurationError(f"'{name}' is a {type(found).__name__}, not a function, so it cannot be a tool")
        return found  # type: ignore[no-any-return]


def find_references(names: dict[str, Any], prompt: str, include: list[str]) -> Found:
    """Return a question with what it refers to. Raises `ConfigurationError` for what `include` names in vain."""
    from mentra_nb.notebook.references.tokens import Found

    if "@" not in prompt and not include:
        return Found(prompt)
    from mentra_nb.notebook.references.names import Notebook

    return Notebook(names, kernel.cells()).find(prompt, include)


def show(
    turn: RunningTurn,
    names: dict[str, Any],
    *,
    quiet: bool = False,
    verbose: bool = False,
    since: float | None = None,
) -> Reply:
    """Show a turn in the running cell until it ends, and store its reply as `_mentra` in `names`, the user's variables.

    The turn is stopped if showing it fails. The options are those of `drive`.
    """
    try:
        from mentra_nb.chat.engine import engine
        from mentra_nb.chat.rules import SCOPES
        from mentra_nb.notebook.drive import drive

        hz = engine().settings.stream_hz
        reply = drive(turn, quiet=quiet, verbose=verbose, hz=hz, scopes=SCOPES, since=since)
    except BaseException:
        turn.stop()
        raise
    reply.shown = kernel.execution_count()
    names["_mentra"] = reply
    return reply


def apply_nest_asyncio() -> None:
    """Patch asyncio for the whole process, for code that re-enters the kernel's own loop.

    Raises:
        ConfigurationError: on ipykernel 7, where it loses queued cells.
    """
    if kernel.ipykernel_kernel() is not None:
        from importlib.metadata import version

        if int(version("ipykernel").split(".")[0]) >= 7:
            raise ConfigurationError(
                "nested_asyncio is refused on ipykernel 7, where it loses queued cells: await instead of asyncio.run"
            )
    import nest_asyncio

    nest_asyncio.apply()
