"""`%mentra` and `%%mentra`: parse, hand to the conversation, draw. Grammar is `options.py`, drawing `turn.py`."""

from __future__ import annotations

import hashlib
import keyword
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand
from traitlets import Bool, Enum, Float, List, TraitError, Unicode, validate

from mentra_nb.errors import ConfigurationError, MentraError, OperationDenied
from mentra_nb.notebook import kernel
from mentra_nb.notebook.grammar import COMMANDS, Parsed, help_text, parse
from mentra_nb.notebook.pump import clicks_are_served
from mentra_nb.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from mentra_nb.chat.chat import Chat
    from mentra_nb.chat.doctor import Finding
    from mentra_nb.chat.reply import Reply
    from mentra_nb.chat.turn import RunningTurn
    from mentra_nb.event.types import TurnOrigin

_HELP = {name: field.description or "" for name, field in Settings.model_fields.items()}


@magics_class
class Mentra(Magics):
    """Settings of the notebook's agent. `%config Mentra.model = "ollama/qwen3"` sets one."""

    model = Unicode(None, allow_none=True, help=_HELP["model"]).tag(config=True)
    ask = Enum(["always", "changes", "rules"], "changes", help=_HELP["ask"]).tag(config=True)
    ask_timeout = Float(600.0, help=_HELP["ask_timeout"]).tag(config=True)
    log_text = Enum(["none", "preview", "full"], "preview", help=_HELP["log_text"]).tag(config=True)
    redact = List(Unicode(), help=_HELP["redact"]).tag(config=True)
    stream_hz = Float(12.0, help=_HELP["stream_hz"]).tag(config=True)
    nested_asyncio = Bool(False, help=_HELP["nested_asyncio"]).tag(config=True)

    @validate("model", "ask", "ask_timeout", "log_text", "redact", "stream_hz", "nested_asyncio")
    def _set(self, proposal: Any) -> Any:
        from mentra_nb.chat.engine import engine

        name, value = proposal["trait"].name, proposal["value"]
        try:
            if name == "nested_asyncio" and value:
                apply_nest_asyncio()
            engine().settings.change(name, value, "%config Mentra")
        except MentraError as error:
            raise TraitError(str(error)) from None  # the one error after which traitlets goes back to the old value
        if name in ("log_text", "redact"):
            setattr(engine().runtime.audit, name, value)  # the engine's is a Journal
        return value

    # ---- the magic --------------------------------------------------------------------------------------------

    @no_var_expand
    @line_cell_magic
    def mentra(self, line: str, cell: str | None = None) -> Any:
        """Ask a model, or manage the conversation. See `%mentra help`."""
        try:
            parsed = parse(line, cell)
            if parsed.command is not None:
                return getattr(self, f"_do_{parsed.command}")(**parsed.words)
            reply = self._ask(parsed)
        except MentraError as error:  # our own words, without a traceback of ours
            raise UsageError(str(error)) from None
        return None if cell is not None or parsed.out else reply

    def _ask(self, parsed: Parsed) -> Reply:
        if parsed.out is not None and (not parsed.out.isidentifier() or keyword.iskeyword(parsed.out)):
            raise ConfigurationError(f"-o needs a Python name, not '{parsed.out}'")
        chat = self._conversation(parsed.session)
        tools = [self._function(name) for name in parsed.tool]
        turn = chat.start(parsed.prompt, model=parsed.model, tools=tools, origin=origin(parsed.prompt))
        reply = show(turn, quiet=parsed.quiet, verbose=parsed.verbose)
        self._namespace()["_mentra"] = reply
        if parsed.out is not None:
            self._namespace()[parsed.out] = reply
        return reply

    def _namespace(self) -> dict[str, Any]:
        assert self.shell is not None  # only ever made by a shell
        namespace: dict[str, Any] = self.shell.user_ns
        return namespace

    def _conversation(self, name: str | None = None) -> Chat:
        from mentra_nb.chat.api import conversation

        return conversation(name)

    def _function(self, name: str) -> Callable[..., Any]:
        from mentra_nb.tools.tool import Tool

        found = self._namespace().get(name)
        if found is None:
            raise ConfigurationError(
                f"there is no '{name}' in this notebook to use as a tool: define the function first"
            )
        if not callable(found) and not isinstance(found, Tool):
            raise ConfigurationError(f"'{name}' is a {type(found).__name__}, not a function, so it cannot be a tool")
        return found  # type: ignore[no-any-return]

    # ---- subcommands ------------------------------------------------------------------------------------------

    def _do_help(self, word: str | None) -> None:
        _say(help_text(word))

    def _do_status(self) -> None:
        from mentra_nb.chat.engine import engine

        chat, used = self._conversation(), engine()
        model = used.default_model or used.settings.model or "chosen by the keys there are"
        turns = chat.turn_count
        _say(
            f"model    {model}\n"
            f"session  {chat.name or 'this notebook'}, {turns} turn{'s' * (turns != 1)}\n"
            f"rules    {len(chat.rules())}\n"
            f"asks     {used.settings.ask}\n\n"
            "Try: %mentra what can you do here?\n"
            "     %mentra tools\n"
            "     %mentra help"
        )

    def _do_model(self, name: str | None) -> None:
        from mentra_nb.chat.engine import engine

        used = engine()
        if name is not None:
            used.call(used.model, name)  # says what is wrong with it, if anything
            used.default_model = name
        _say(used.default_model or used.settings.model or "no model is set: it is chosen by the keys there are")

    def _do_models(self, text: str | None, all: str | None) -> pd.DataFrame:
        from mentra_nb.chat import api

        return api.models(text, all=all is not None)

    def _do_alias(self, name: str | None, target: str | None) -> None:
        from mentra_nb.chat.engine import engine
        from mentra_nb.chat.models import with_alias

        used = engine()
        if name is not None and target is not None:
            aliases = with_alias(name, target, used.settings, used.registered())
            used.settings.change("aliases", aliases, "%mentra alias")
        shown = {key: value for key, value in used.settings.aliases.items() if name in (None, key)}
        if name is not None and not shown:
            raise ConfigurationError(f"there is no alias '{name}': %mentra alias {name} provider/model makes it")
        _say("\n".join(f"{key} → {value}" for key, value in sorted(shown.items())) or "there are no aliases")

    def _do_tools(self) -> pd.DataFrame:
        import pandas as pd

        from mentra_nb.chat.engine import engine

        rows = [
            {
                "tool": spec.name,
                "reads_only": spec.reads_only,
                "asks": spec.asks and not spec.reads_only,
                "description": spec.description,
            }
            for spec in (*engine().runtime.tools(), *self._conversation().tools())
        ]
        return pd.DataFrame(rows, columns=["tool", "reads_only", "asks", "description"])

    def _do_rules(self, id: str | None) -> pd.DataFrame | None:
        from mentra_nb.chat import api

        if id is None:
            return api.rules()
        self._conversation().revoke(id)
        _say(f"Revoked {id}.")
        return None

    def _do_allow(self) -> None:
        # a turn that waits is answered by its own cell's pump, before this can run: here nothing waits any more
        raise OperationDenied("no question is open here: type it in another cell while one waits")

    _do_deny = _do_allow

    def _do_stop(self) -> None:
        raise OperationDenied("no turn is running here: type it in another cell while one runs")

    def _do_resume(self, name: str | None) -> None:
        chat = self._conversation(name)
        self._namespace()["_mentra"] = show(chat.resume(origin=origin("resume")))

    def _do_last(self) -> None:
        from mentra_nb.notebook.render import bundle
        from mentra_nb.notebook.view import CellOut

        reply = self._conversation().last
        if reply is None:
            raise OperationDenied("there is no answer yet in this notebook's conversation")
        CellOut().show(bundle(reply.text))

    def _do_usage(self, by: str | None) -> pd.DataFrame:
        from mentra_nb.record.read.frames import usage

        return usage(by=by or "model")  # type: ignore[arg-type]  # refuses what it does not know

    def _do_log(self, sql: str | None) -> pd.DataFrame:
        import duckdb

        from mentra_nb.record.read import frames

        try:
            return frames.sql(sql) if sql else frames.decisions()
        except duckdb.Error as error:  # about the person's own SQL
            raise UsageError(" ".join(str(error).split())) from None

    def _do_check(self) -> pd.DataFrame:
        import pandas as pd

        from mentra_nb.chat.doctor import findings
        from mentra_nb.chat.engine import engine

        return pd.DataFrame([vars(found) for found in (*_here(), *findings(engine()))])

    def _do_config(self) -> pd.DataFrame:
        import pandas as pd

        from mentra_nb.chat.engine import engine

        settings = engine().settings
        rows = [(name, getattr(settings, name), settings.source(name)) for name in Settings.model_fields]
        return pd.DataFrame(rows, columns=["setting", "value", "source"])


def _here() -> Iterator[Finding]:
    """What can be said of this kernel and its front end."""
    from importlib.metadata import version

    from mentra_nb.chat.doctor import Finding

    if kernel.ipykernel_kernel() is None:
        where = "a terminal: questions are asked as text" if kernel.in_terminal() else "no kernel and no terminal"
        yield Finding("front end", kernel.in_terminal() or None, where)
        return
    answers = kernel.front_end_answers()
    yield Finding(
        "front end",
        True if answers else None,
        "a person can be asked" if answers else "nobody can be asked: an automatic run",
        "" if answers else "allow beforehand with mn.allow(…)",
    )
    served = clicks_are_served()
    yield Finding(
        "clicks while a cell runs",
        served,
        f"ipykernel {version('ipykernel')}",
        "" if served else "questions are asked as text; ipykernel 6.29 to 7.4 is known to work",
    )
    yield Finding("widgets", True, f"ipywidgets {version('ipywidgets')}, anywidget {version('anywidget')}")


def show(turn: RunningTurn, *, quiet: bool = False, verbose: bool = False) -> Reply:
    """Show a turn in the running cell until it ends; whatever ends the showing ends the turn."""
    try:
        from mentra_nb.chat.chat import SCOPES
        from mentra_nb.chat.engine import engine
        from mentra_nb.notebook.drive import drive

        reply = drive(turn, quiet=quiet, verbose=verbose, hz=engine().settings.stream_hz, scopes=SCOPES)
    except BaseException:
        turn.stop()
        raise
    reply.shown = True
    return reply


def origin(prompt: str) -> TurnOrigin:
    """The running cell, as the origin of `prompt`. Where the front end names no cell, the prompt stands for it."""
    from mentra_nb.event.types import TurnOrigin

    cell = kernel.cell_id() or hashlib.sha256(prompt.encode()).hexdigest()[:16]
    return TurnOrigin(cell_id=cell, execution_count=kernel.execution_count())


def apply_nest_asyncio() -> None:
    """Patch asyncio for the whole process, for code that re-enters the kernel's own loop.

    Raises:
        ConfigurationError: on ipykernel 7, where it loses queued cells.
    """
    if kernel.ipykernel_kernel() is not None:
        from importlib.metadata import version

        if int(version("ipykernel").split(".")[0]) >= 7:
            raise ConfigurationError(
                "nested_asyncio cannot be used on ipykernel 7, where it loses queued cells; asyncio.run needs no help"
            )
    import nest_asyncio

    nest_asyncio.apply()


def _say(text: str) -> None:
    print(text)  # noqa: T201 - what a subcommand says is the output of its cell


assert all(hasattr(Mentra, f"_do_{command.name}") for command in COMMANDS)
