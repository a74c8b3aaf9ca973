"""`%load_ext mentra_nb`: registers the magic, its completion and how a reply shows itself, and takes it all back.

Loading prints nothing, writes nothing and asks no network.
"""

from __future__ import annotations

import re
from typing import Any

from mentra_nb.chat.present import Presenter, present_with
from mentra_nb.notebook.magics import Mentra, somebody_there
from mentra_nb.notebook.options import completions

_QUESTION = re.compile(r"(?P<before>\s*(?:[\w.]+\s*=\s*)?)%mentra[ \t]+(?P<prompt>\S.*\?)[ \t]*\n?")


def load(shell: Any) -> None:
    """Register everything once. Loading again changes nothing."""
    if _magics(shell) is not None:
        return
    shell.register_magics(Mentra)
    shell.input_transformers_cleanup.append(keep_question_mark)
    _set_matcher(shell, add=True)
    shell.display_formatter.ipython_display_formatter.for_type_by_name("mentra_nb.chat.reply", "Reply", show_reply)
    present_with(Presenter(show=_show, can_ask=somebody_there))


def unload(shell: Any) -> None:
    """Take back what `load` registered. Conversations and the record stay."""
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
    present_with(None)


def _magics(shell: Any) -> Mentra | None:
    return shell.magics_manager.registry.get("Mentra")  # type: ignore[no-any-return]


def keep_question_mark(lines: list[str]) -> list[str]:
    """A question ends in `?`, and IPython would show help for its last word: pass such a line on as a call."""
    if len(lines) != 1 or (found := _QUESTION.fullmatch(lines[0])) is None:
        return lines
    call = f"get_ipython().run_line_magic('mentra', {found['prompt']!r})\n"
    return [found["before"] + call]


def complete(context: Any) -> Any:
    """Completion on `%mentra` and `%%mentra` lines: options, subcommands, and functions after `-t`."""
    from IPython.core.completer import SimpleCompletion

    line = context.line_with_cursor[: context.cursor_position]
    if not line.startswith(("%mentra ", "%%mentra ")):
        return {"completions": []}
    found, fragment = completions(line)
    return {
        "completions": [SimpleCompletion(text=text, type="magic") for text in found],
        "matched_fragment": fragment,
        "suppress": bool(found),
    }


complete.matcher_api_version = 2  # type: ignore[attr-defined]  # how IPython tells this form from the older one


def _set_matcher(shell: Any, *, add: bool) -> None:
    matchers = shell.Completer.custom_matchers
    if add and complete not in matchers:
        matchers.append(complete)
    elif not add and complete in matchers:
        matchers.remove(complete)


def show_reply(reply: Any) -> None:
    """A reply that streamed into its cell does not print again as its `Out`; the next time it shows itself."""
    from mentra_nb.notebook.render import bundle
    from mentra_nb.notebook.view import CellOut

    if reply.shown:
        reply.shown = False
        return
    CellOut().show(bundle(reply.text))


def _show(turn: Any) -> Any:
    """How `mn.ask` shows a turn in a cell: as `%%mentra` does."""
    from mentra_nb.chat.engine import engine
    from mentra_nb.notebook.turn import drive

    reply = drive(turn, hz=engine().settings.stream_hz)
    reply.shown = True
    return reply
