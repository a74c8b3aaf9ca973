"""`%load_ext mentra_nb`: registers the magic, its completion and the display of replies; unloading removes them.

Loading prints nothing, writes nothing and sends nothing over the network.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, partial
from types import FunctionType
from typing import TYPE_CHECKING, Any

from mentra_nb.chat.turn import Place, Presenter, present_with, presenter
from mentra_nb.notebook import kernel
from mentra_nb.notebook.frames import frame_html, frame_text
from mentra_nb.notebook.grammar import VISIBLE, completions
from mentra_nb.notebook.last_error import keep_error
from mentra_nb.notebook.magics import Mentra, show

if TYPE_CHECKING:
    from mentra_nb.notebook.python.user_kernel import ShellKernel
    from mentra_nb.tools.tool import Tool

_REPLY = "mentra_nb.chat.reply", "Reply"
_FRAMES = ("pandas", "DataFrame"), ("pandas.core.frame", "DataFrame")
"""pandas 3 and 2."""
_REFERENCE = re.compile(r"(?<![\w@.`/\\+-])(?P<word>@[^\s`@]*)$")
"""The word before the cursor, if it is a reference."""
_QUESTION = re.compile(r"(?P<before>\s*(?:[\w.]+\s*=\s*)?)%mentra[ \t]+(?P<prompt>\S.*\?)[ \t]*\n?")


def load(shell: Any) -> None:
    """Register everything. Loading again changes nothing."""
    if _magics(shell) is not None:
        return
    shell.register_magics(Mentra)
    shell.input_transformers_cleanup.append(keep_question_mark)
    _set_matcher(shell, add=True)
    shell.events.register("post_run_cell", keep_error)
    _set_display(shell)


def attach() -> None:
    """Show turns in the cells of this kernel, without the magic. Does nothing where there is none, or a presenter."""
    running = kernel.ipykernel_kernel()
    if running is not None and presenter() is None:
        _set_display(running.shell)


def _set_display(shell: Any) -> None:
    shell.display_formatter.ipython_display_formatter.for_type_by_name(*_REPLY, show_reply)
    for name in _FRAMES:
        shell.display_formatter.formatters["text/html"].for_type_by_name(*name, frame_html)
        shell.display_formatter.formatters["text/plain"].for_type_by_name(*name, frame_text)
    present_with(
        Presenter(
            partial(show, names=shell.user_ns),
            kernel.running_cell,
            kernel.notebook_name,
            kernel.is_watched,
            partial(notebook_tools, shell),
            lambda: used.history if (used := user_kernel(shell)) is not None else None,
            partial(_place, shell),
            lambda: not kernel.in_terminal(),
        )
    )


def _place(shell: Any) -> Place | None:
    from mentra_nb.notebook.afterwards import place

    return place(shell)


@cache
def user_kernel(shell: Any) -> ShellKernel | None:
    """Return the kernel in which a model's code may run; `None` at a terminal."""
    if kernel.ipykernel_kernel() is None:
        return None
    from mentra_nb.notebook.python.user_kernel import ShellKernel

    return ShellKernel(shell)


@cache
def notebook_tools(shell: Any) -> tuple[Tool, ...]:
    """Return the tools for a person's own session: asking them, and in a kernel Python and its variables."""
    from mentra_nb.tools.builtin.ask_user import AskUserTool

    used = user_kernel(shell)
    if used is None:
        return (AskUserTool(),)
    from mentra_nb.tools.builtin.python import PythonTool, VariablesTool

    return AskUserTool(), PythonTool(used), VariablesTool(used)


def unload(shell: Any) -> None:
    """Remove everything `load` registered. Conversations and the record stay."""
    magics = _magics(shell)
    if magics is None:
        return
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("mentra", None)
    shell.magics_manager.registry.pop("Mentra", None)
    if magics in shell.configurables:
        shell.configurables.remove(magics)
    if keep_question_mark in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.remove(keep_question_mark)
    _set_matcher(shell, add=False)
    if keep_error in shell.events.callbacks["post_run_cell"]:
        shell.events.unregister("post_run_cell", keep_error)
    shell.display_formatter.ipython_display_formatter.pop(".".join(_REPLY), None)
    for name in _FRAMES:
        for kind in ("text/html", "text/plain"):
            shell.display_formatter.formatters[kind].pop(".".join(name), None)
    present_with(None)


def _magics(shell: Any) -> Mentra | None:
    return shell.magics_manager.registry.get("Mentra")  # type: ignore[no-any-return]


def keep_question_mark(lines: list[str]) -> list[str]:
    """Rewrite a `%mentra` line that ends in `?` as a call: IPython would show help for its last word instead."""
    if not any(_QUESTION.fullmatch(text) for text in lines) or lines[0].startswith("%%"):
        return lines
    from IPython.core.inputtransformer2 import make_tokens_by_line

    # A matching line inside a multi-line string is left alone: no token begins on it.
    begins = {tokens[0].start[0] - 1 for tokens in make_tokens_by_line(lines) if tokens}
    return [_as_call(text) if number in begins else text for number, text in enumerate(lines)]


def _as_call(text: str) -> str:
    found = _QUESTION.fullmatch(text)
    return f"{found['before']}get_ipython().run_line_magic('mentra', {found['prompt']!r})\n" if found else text


def complete(context: Any) -> Any:
    """Complete `%mentra` and `%%mentra` lines: options, their values, subcommands and their words."""
    from IPython.core.completer import SimpleCompletion

    line = context.line_with_cursor[: context.cursor_position]
    begins = line.startswith(("%mentra ", "%%mentra "))
    word = _REFERENCE.search(line)
    if word is not None and (begins or context.full_text.lstrip().startswith("%%mentra")):
        found, fragment = _references(word["word"]), word["word"]
    elif begins:
        found, fragment = completions(line, _Names(line.rpartition(" ")[2]))
    else:
        return {"completions": []}
    return {
        "completions": [SimpleCompletion(text=text, type="magic") for text in found],
        "matched_fragment": fragment,
        "suppress": bool(found),
    }


def _references(word: str) -> list[str]:
    """Return what `@` and the beginning of a name may go on with in this notebook."""
    from IPython import get_ipython

    from mentra_nb.notebook.references.names import Notebook, begun

    shell: Any = get_ipython()
    return begun(Notebook(shell.user_ns, kernel.cells()), word)


class _Names:
    """The names completion offers in this notebook. `begun` is what has been typed of the word."""

    def __init__(self, begun: str) -> None:
        self.begun = begun

    def functions(self) -> list[str]:
        """Return the functions and tools the user defined."""
        from IPython import get_ipython

        from mentra_nb.tools.tool import Tool

        shell: Any = get_ipython()
        names, hidden = shell.user_ns, shell.user_ns_hidden
        mine = (name for name in names if not name.startswith("_") and names[name] is not hidden.get(name, names))
        return sorted(name for name in mine if isinstance(names[name], (FunctionType, Tool)))

    def references(self) -> list[str]:
        """Return what can be handed over."""
        return [each[1:] for each in _references(f"@{self.begun.removeprefix('@')}")]

    def models(self) -> list[str]:
        """Return aliases and the prefixes of model names; then the models that were listed.

        After a prefix, the models of that provider: its server is asked if it is on this machine.
        """
        from mentra_nb.chat.catalog import models_of
        from mentra_nb.chat.engine import engine
        from mentra_nb.chat.models import known_names
        from mentra_nb.errors import ConfigurationError
        from mentra_nb.settings import Settings

        try:
            used = engine()
        except ConfigurationError:  # a wrong setting is reported by the next turn, not by completion
            return known_names(Settings())
        names = known_names(used.settings, used.registered())
        provider, slash, _ = self.begun.partition("/")
        return names + (used.call(models_of, used, provider) if slash else sorted(used.listed))

    def rules(self) -> list[str]:
        """Return the short ids of the rules that hold in this notebook's conversation."""
        from mentra_nb.chat.api import conversation
        from mentra_nb.ids import short_id

        return [short_id(rule.id) for rule in conversation().rules()]

    def sessions(self, *, unnamed: bool) -> list[str]:
        """Return the names of the project's conversations, last used first; `unnamed` adds ids of those without."""
        from mentra_nb.chat.api import stored_conversations
        from mentra_nb.chat.earlier import known_as

        found = reversed(stored_conversations())
        return list(dict.fromkeys(known_as(each) for each in found if unnamed or each.session.given_name))

    def session_ids(self) -> list[str]:
        """Return the short ids of the project's conversations, last used first."""
        from mentra_nb.chat.api import stored_conversations
        from mentra_nb.ids import short_id

        return [short_id(each.session.id) for each in reversed(stored_conversations())]

    def commands(self) -> Sequence[str]:
        return VISIBLE


complete.matcher_api_version = 2  # type: ignore[attr-defined]  # IPython's mark of the newer form


def _set_matcher(shell: Any, *, add: bool) -> None:
    matchers = shell.Completer.custom_matchers
    if add and complete not in matchers:
        matchers.append(complete)
    elif not add and complete in matchers:
        matchers.remove(complete)


def show_reply(reply: Any) -> None:
    """Show a reply as the value of a cell: its typed value, or its text unless the same cell has just streamed it."""
    from mentra_nb.notebook.output import show_answer, show_value

    if reply.value is not None:
        show_value(reply)
    elif reply.shown is not None and reply.shown == kernel.execution_count():
        reply.shown = None
    else:
        show_answer(reply)
