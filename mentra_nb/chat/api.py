"""The functions of `mentra_nb` about the notebook's conversation: asking, its rules, and its models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import SecretStr

from mentra_nb import paths
from mentra_nb.agent.limits import RunOptions
from mentra_nb.arguments import check_path, check_text
from mentra_nb.authorization import PermissionRule
from mentra_nb.chat.chat import Chat
from mentra_nb.chat.earlier import known_as, meant
from mentra_nb.chat.engine import engine
from mentra_nb.chat.models import address_in, custom
from mentra_nb.chat.reply import Reply
from mentra_nb.errors import ConfigurationError, OperationDenied
from mentra_nb.providers.base import Provider
from mentra_nb.record.read.filters import set_this_session
from mentra_nb.settings import Endpoint
from mentra_nb.store.records import ConversationSummary
from mentra_nb.tools.tool import Tool

if TYPE_CHECKING:
    import pandas as pd

RULE_COLUMNS = ("tool", "pattern", "allow", "scope", "folders", "breadth", "reason", "times_used", "created_at", "id")


def conversation(name: str | None = None) -> Chat:
    """Return the conversation of that name in this process; without a name, the notebook's own (new in each kernel)."""
    chats: dict[str | None, Chat] = engine().chats
    if name not in chats:
        chats[name] = Chat(name)
    return chats[name]


set_this_session(lambda: conversation().id)


def stored_conversations(*, of_notebook: bool = False) -> list[ConversationSummary]:
    """Return the conversations of this project in which something was asked, the one used last at the end.

    With `of_notebook` only those of the notebook that is open.
    """
    used, notebook = engine(), conversation().notebook if of_notebook else None
    if of_notebook and notebook is None:
        return []
    return used.call(used.runtime.store.list_conversations, str(paths.project_root()), notebook)


def take_up(said: str | None = None) -> tuple[Chat, ConversationSummary]:
    """Make a stored conversation go on with the next turn. Returns it, and how it has been used.

    Args:
        said: its name, its id, or the beginning or end of its id. Without it, the notebook's own conversation if it has
            begun, else the last one of this notebook.

    Raises:
        OperationDenied: there is none like it; nothing was changed.
        LeaseUnavailable: another process has it; nothing was changed.
    """
    own, stored = conversation(), stored_conversations()
    if said is not None:
        found = meant(stored, said)
    else:
        mine = [each for each in stored if each.session.id == own.id] or stored_conversations(of_notebook=True)
        if not mine:
            raise OperationDenied("this notebook has no earlier conversation")
        found = mine[-1]
    used = engine()
    used.call(used.runtime.check_free, found.session, known_as(found))
    chat = own if found.session.id == own.id else conversation(found.session.given_name)
    chat.take_up(found.session)
    return chat, found


def ask(
    prompt: str,
    *objects: Any,
    model: str | None = None,
    tools: Iterable[Tool | Callable[..., Any]] = (),
    session: str | None = None,
    system: str | None = None,
    as_: Any = None,
    limits: RunOptions | None = None,
) -> Reply:
    """Ask, wait for the answer and return it. In a notebook it streams into the cell and may ask about tools.

    Args:
        prompt: What to say.
        *objects: Handed over as data, as `preview` shows it: frames, arrays, figures, objects, a `Path` for a file.
        model: Asked in this turn, as `provider/model`.
        tools: Functions or tools offered in this turn only.
        session: The name of the conversation; without one it is the notebook's own.
        system: The system prompt of this turn.
        as_: A type, as pydantic understands it: the reply's `value` is of it. `"df"` makes it a DataFrame, `"json"` any
            JSON. An answer that does not fit goes back to the model once.
        limits: Of this turn.

    Raises:
        MentraError: what went wrong, in one sentence.

    Example:
        >>> reply = mn.ask("What was the revenue in March?")
        >>> print(reply)
        Revenue in March was 2400 dollars.
        >>> mn.ask("Which of these is a city? Oslo, Norway", as_=list[str]).value
        ['Oslo']
    """
    chat = conversation(session)
    return chat.ask(prompt, *objects, model=model, tools=tools, system=system, as_=as_, limits=limits)


async def aask(prompt: str, *objects: Any, session: str | None = None, **how: Any) -> Reply:
    """Ask without blocking, on any asyncio event loop. Nobody is asked about tools; `allow` lets them run.

    Cancelling the await stops the turn. Arguments and errors as `ask`.

    Example:
        >>> import asyncio
        >>> months = ("March", "April")
        >>> replies = await asyncio.gather(*[mn.aask(f"What was the revenue in {m}?", session=m) for m in months])
        >>> [reply.text for reply in replies]
        ['Revenue in March was 2400 dollars.', 'Revenue in March was 2400 dollars.']
    """
    return await conversation(session).aask(prompt, *objects, **how)


def allow(
    tool: str,
    pattern: str = "*",
    *,
    scope: Literal["session", "project", "global"] = "session",
    inside: Sequence[str] | None = None,
) -> PermissionRule:
    """Let `tool` run unasked where its subject (a command, a path) fits `pattern`, and return the rule.

    In a pattern, `*` stands for any characters and `?` for one. With folders named in `inside`, a command runs in the
    sandbox, and what it changes inside them is kept unasked; it never runs outside the sandbox by such a rule, which
    is for a line with redirections (`echo a >file`) as well: the pattern is compared with the line without them. The
    rule's `breadth` says what it covers beyond what it looks like, such as options that run other programs.

    Example:
        >>> mn.allow("shell", "git status*").pattern
        'git status*'
        >>> mn.allow("shell", "make *", inside=["build"]).pattern
        'make *'
        >>> mn.allow("shell", "sort *").breadth
        'sort --compress-program can run other programs; sort -o and sort --output can write files'
    """
    return conversation().allow(tool, pattern, scope=scope, inside=inside)


def deny(
    tool: str,
    pattern: str = "*",
    *,
    scope: Literal["session", "project", "global"] = "session",
    reason: str | None = None,
) -> PermissionRule:
    """Never let `tool` run where its subject fits `pattern`, and return the rule. It wins over `allow`.

    The model gets `reason`.

    Example:
        >>> mn.deny("shell", "rm *", reason="move it to the trash").allow
        False
    """
    return conversation().deny(tool, pattern, scope=scope, reason=reason)


def revoke(rule: str | int) -> PermissionRule:
    """Delete a rule of the notebook's conversation, and return it.

    Args:
        rule: Its number in `rules()` counted from 1, its id, or at least four characters of the beginning or end of it.

    Raises:
        OperationDenied: there is no such rule, or more than one.

    Example:
        >>> rule = mn.deny("write", "*.csv")
        >>> mn.revoke(rule.id).pattern
        '*.csv'
    """
    return conversation().revoke(rule)


def rules() -> pd.DataFrame:
    """Return the rules that hold in the notebook's conversation.

    Columns: tool, pattern (str), allow (bool), scope, folders (tuple of str, of a rule on what a command changes),
    breadth (str, what an allowance covers beyond what it looks like), reason (str), times_used (int), created_at
    (datetime, UTC), id (str).

    Example:
        >>> rule = mn.allow("read", "data/*", scope="project")
        >>> found = mn.rules()
        >>> found[found.id == rule.id][["tool", "pattern", "allow", "scope"]].values.tolist()
        [['read', 'data/*', True, 'project']]
    """
    import pandas as pd

    from mentra_nb.record.empty import or_why

    rows = [rule.model_dump(include=set(RULE_COLUMNS)) for rule in conversation().rules()]
    frame = pd.DataFrame(rows, columns=list(RULE_COLUMNS))
    frame["created_at"] = pd.to_datetime(frame["created_at"], unit="s", utc=True).dt.as_unit("us")
    why = "No rules yet: mn.allow('shell', 'git *') lets a tool run unasked, and mn.deny('write') refuses it."
    return or_why(frame, why)


def models(text: str | None = None, *, all: bool = False) -> pd.DataFrame:
    """Return the models that can be asked, newest first for each provider; print which provider did not answer.

    Providers with a key, configured or connected servers, and local servers that answer at their usual port. `text`
    filters by name; `all` also lists models that are not made for conversation.

    Columns: model (str, the name for `-m`), provider, display_name (str), created_at (datetime, UTC), context_window
    (Int64, tokens).

    Example:
        >>> mn.models("example").model.tolist()
        ['example/small']
    """
    import pandas as pd

    from mentra_nb.chat.catalog import catalog
    from mentra_nb.record.empty import or_why

    check_text("mn.models('qwen')", {"part of a name": text})
    used = engine()
    found, notes = used.call(catalog, used, text, all)
    for note in notes:
        print(note)  # noqa: T201 - part of the answer
    rows = [(str(m), m.provider, m.display_name, m.created_at, m.context_window) for m in found]
    frame = pd.DataFrame(rows, columns=["model", "provider", "display_name", "created_at", "context_window"])
    frame["created_at"] = pd.to_datetime(frame["created_at"], utc=True)
    why = (
        f"No model has {text!r} in its name."
        if text
        else "No model can be asked: %mentra check says how to set one up."
    )
    return or_why(frame.astype({"context_window": "Int64"}), why)


def connect(
    name: str,
    base_url: str,
    *,
    wire: Literal["responses", "chat_completions", "anthropic_messages", "gemini_generate_content"] | None = None,
    api_key: str | None = None,
    auth_header: str | None = None,
    headers: Mapping[str, str] | None = None,
    model: str | None = None,
) -> None:
    """Register a server as `name`, and make `name/model` the default. Nothing is sent yet.

    Args:
        name: The first part of the names of its models.
        base_url: Its address, such as `http://host:port/v1`, or the whole address of a request as a manual shows it.
        wire: What it speaks. By default as the address ends (`/chat/completions`, `/responses`, `/messages`,
            `:streamGenerateContent`), else `chat_completions`.
        api_key: Sent in the header that the wire uses, or unchanged in `auth_header`.
        auth_header: The name of the header for the key.
        headers: Sent with every request.
        model: The model to ask; without one, its newest.

    Raises:
        ConfigurationError: the name is taken, or the URL is invalid.

    Example:
        >>> mn.connect("lab", "http://127.0.0.1:8000/v1", model="qwen3")
    """
    check_text("mn.connect('lab', 'http://127.0.0.1:8000/v1')", {"model": model}, name=name, address=base_url)
    used, secret = engine(), {header: SecretStr(value) for header, value in (headers or {}).items()}
    given: dict[str, Any] = {} if wire is None else {"wire": wire}
    endpoint = Endpoint(base_url=base_url, auth_header=auth_header, headers=secret, **given)
    used.use(custom(name, endpoint, api_key, used.runtime.http()), model or address_in(base_url).model)


def use(provider: Provider, model: str | None = None) -> None:
    """Ask a provider object from here on: a class of your own, or a script that plays the model's part.

    Args:
        provider: What is asked. It replaces one with the same id.
        model: The model to ask; without one, its newest.

    Raises:
        ConfigurationError: it is not a provider.

    Example:
        >>> mn.use(mn.ScriptedProvider([mn.scripted.text("Hello.")]))
        >>> mn.ask("Say hello.").text
        'Hello.'
    """
    if not isinstance(provider, Provider):
        raise ConfigurationError(
            f"a provider is asked for, not {type(provider).__name__}: mn.use(mn.ScriptedProvider([…]))"
        )
    check_text("mn.use(provider, 'a-model')", {"model": model})
    engine().use(provider, model)


def replay(path: str | Path) -> None:
    """Answer from a tape from here on: offline, free, and the same each time.

    A request that is not on the tape raises `ReplayMiss`, which says what differs.

    Raises:
        ConfigurationError: there is no such file, or it is not a tape.

    Example:
        >>> mn.replay("first_turn.jsonl")
    """
    from mentra_nb.providers.replay import replay_provider

    check_path("mn.replay('march.jsonl')", path)
    file = Path(path)
    if not file.is_file():
        raise ConfigurationError(f"there is no tape at {path}: make one with mn.tape({str(path)!r}, model)")
    provider = replay_provider(file)
    models = engine().call(provider.list_models)
    engine().use(provider, models[0].id if models else None)


def tape(path: str | Path, model: str) -> None:
    """Ask `model` (as provider/model) from here on, and write its server's answers to `path`, for `replay`.

    Raises:
        ConfigurationError: the model is not known, or its provider cannot be taped.

    Example:
        >>> mn.tape("march.jsonl", "ollama/qwen3")
    """
    from mentra_nb.providers.replay import taping

    check_path("mn.tape('march.jsonl', 'ollama/qwen3')", path)
    check_text("mn.tape('march.jsonl', 'ollama/qwen3')", model=model)
    used = engine()
    resolved = used.call(used.model, model)
    used.use(taping(used.runtime.provider(resolved.provider), path), resolved.id)
