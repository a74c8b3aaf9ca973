"""May this call run? The questions and answers of authorization as frozen data, and the authorizer's protocol.

Matching rules is `permission/rules.py`; asking a person is `permission/asking.py`.
"""

from enum import StrEnum
from typing import Any, Literal, Protocol, Self

from pydantic import Field, model_validator

from mentra_nb.content import Data
from mentra_nb.forms import Form


class ToolCapability(StrEnum):
    """What a tool can touch, in the original runtime's names."""

    READ_ONLY = "ReadOnly"
    FILESYSTEM_READ = "FilesystemRead"
    FILESYSTEM_WRITE = "FilesystemWrite"
    PROCESS_EXEC = "ProcessExec"
    BACKGROUND_EXEC = "BackgroundExec"
    TASK_MUTATION = "TaskMutation"
    TEAM_COORDINATION = "TeamCoordination"
    DELEGATION = "Delegation"
    CONTEXT_COMPACTION = "ContextCompaction"
    SKILL_LOAD = "SkillLoad"


class CustomCapability(Data):
    """A capability that an application defines: `{"Custom": "name"}`."""

    Custom: str


class Subject(Data):
    """What a call acts on, for rules to match and people to judge: a command line, paths, or the arguments as text.

    A rule covers the call only if its pattern covers every part; a denial needs to match one.
    """

    kind: Literal["shell", "path", "text"] = "text"
    """`shell`: each part is a command line, matched command by command. Otherwise a part is matched as a whole."""
    parts: tuple[str, ...] = ()
    absolute: tuple[str, ...] = ()
    """Of a `path`: the absolute path of each part, matched as well."""
    protected: tuple[str, ...] = ()
    """Those of the parts that no wildcard allows and about which a person is asked, also when they are only read."""
    only_read: tuple[str, ...] = ()
    """Those of the parts of a `path` that the call changes nothing of."""
    sandboxed: bool = False
    """Whether the call runs where its effect can still be discarded."""

    @classmethod
    def shell(cls, command: str) -> Self:
        """Return the subject of one command line."""
        return cls(kind="shell", parts=(command,))

    @classmethod
    def path(
        cls,
        *paths: str,
        absolute: tuple[str, ...] = (),
        protected: tuple[str, ...] = (),
        only_read: tuple[str, ...] = (),
    ) -> Self:
        """Return the subject of a call that touches these files, named as a person would, and by absolute path."""
        return cls(kind="path", parts=paths, absolute=absolute, protected=protected, only_read=only_read)

    @classmethod
    def text(cls, text: str) -> Self:
        """Return the subject of any other call."""
        return cls(parts=(text,))

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"parts": (value,) if value else ()} if isinstance(value, str) else value  # stored by an earlier version

    def forms(self) -> tuple[tuple[str, ...], ...]:
        """Return, for each part, the texts that stand for it."""
        return tuple(zip(self.parts, self.absolute, strict=True)) if self.absolute else tuple((p,) for p in self.parts)

    def __str__(self) -> str:
        return "\n".join(self.parts)


class ToolAuthorizationPreview(Data):
    """What a call would do, before it does it. The levels are the original runtime's names, derived from the tool."""

    working_directory: str
    capabilities: tuple[ToolCapability | CustomCapability, ...] = ()
    side_effect_level: str = "None"
    durability: str = "Ephemeral"
    execution_category: str = "ExclusiveLocalMutation"
    approval_category: str = "Default"
    raw_input: Any = None
    """The arguments as the model sent them."""
    structured_input: Any = None
    """The arguments in normal form: resolved paths, no file contents."""


class FileEffect(Data):
    """What a command did to one file, for a person to judge."""

    path: str
    """Absolute."""
    kind: Literal["created", "changed", "deleted"]
    about: str
    """In words: its type, size and mode, and what they were."""
    diff: tuple[str, ...] = ()
    """Lines of a unified diff, where both are text and not too long."""
    added: int = 0
    removed: int = 0
    is_folder: bool = False
    protected: str | None = None
    """Why it is asked about by name, if it is a protected file."""


class CallEffect(Data):
    """What a call did in the sandbox, which is kept or discarded as a whole, or what it wanted and did not get there.

    `digest` binds an answer to exactly these changes.
    """

    digest: str
    files: tuple[FileEffect, ...] = ()
    wanted: tuple[str, ...] = ()
    """In words."""
    outside: bool = False
    """Whether the question is if it may run again outside the sandbox, as it could not do there what it should."""


class ToolAuthorizationRequest(Data):
    """One call that wants to run, with everything an authorizer may judge by."""

    agent_id: str
    agent_name: str
    model: str = ""
    history_len: int = 0
    tool_call_id: str
    tool_name: str
    preview: ToolAuthorizationPreview
    run_id: str | None = None
    subject: Subject = Subject.model_construct()
    arguments: dict[str, Any] = Field(default_factory=dict)
    """The effective arguments, in full."""
    asks: bool = True
    """Whether the tool's author wants a person asked."""
    again: bool = False
    """Whether the call was interrupted and may have taken effect: then only a person can allow it."""
    effect: CallEffect | None = None
    """What it did in the sandbox, once it has run there."""
    form: Form | None = None
    """The values that are asked for during the call; `None` for a question whether it may run."""
    earlier_runs: tuple[str, ...] = ()
    """`run_id`s of turns that had taken up this call before: a person may have answered there."""


class ToolAuthorizationOutcome(StrEnum):
    ALLOW = "allow"
    PROMPT = "prompt"
    DENY = "deny"


class ToolAuthorizationDecision(Data):
    """What an authorizer decided about a call, and who decided.

    Example:
        >>> mn.ToolAuthorizationDecision.deny("not on Fridays").outcome
        <ToolAuthorizationOutcome.DENY: 'deny'>
    """

    outcome: ToolAuthorizationOutcome
    reason: str | None = None
    decided_by: str = "authorizer"
    """`user`, `rule:<id>`, `policy`, `setting`, `sandbox`, `timeout`, `cancelled`, `runtime`, `headless` or
    `authorizer`."""
    request_id: str | None = None
    """The question that was asked, when a person was."""
    pattern: str | None = None
    """The pattern of the rule that decided, if one did."""
    values: dict[str, Any] | None = None
    """What a person filled in, if values were asked for."""
    arguments: dict[str, Any] | None = None
    """What it may run with, if a person changed the arguments; `None` if it may run as it is."""

    @classmethod
    def allow(cls, decided_by: str = "authorizer") -> Self:
        """Return an allowance.

        Example:
            >>> mn.ToolAuthorizationDecision.allow().outcome.value
            'allow'
        """
        return cls(outcome=ToolAuthorizationOutcome.ALLOW, decided_by=decided_by)

    @classmethod
    def prompt(cls, reason: str | None = None) -> Self:
        """Return a decision that a person must take.

        Example:
            >>> mn.ToolAuthorizationDecision.prompt("it may change something").reason
            'it may change something'
        """
        return cls(outcome=ToolAuthorizationOutcome.PROMPT, reason=reason)

    @classmethod
    def deny(cls, reason: str | None = None, decided_by: str = "authorizer") -> Self:
        """Return a denial; the model gets `reason`."""
        return cls(outcome=ToolAuthorizationOutcome.DENY, reason=reason, decided_by=decided_by)


class ToolAuthorizer(Protocol):
    """Decide whether a call may run. Raising is a denial.

    Example:
        >>> class OnlyReading:
        ...     async def authorize(self, request):
        ...         if mn.authorization.ToolCapability.READ_ONLY in request.preview.capabilities:
        ...             return mn.ToolAuthorizationDecision.allow()
        ...         return mn.ToolAuthorizationDecision.prompt("it may change something")
        ...     def timeout(self):
        ...         return 5.0
        >>> runtime = mn.Runtime(authorizer=OnlyReading())
    """

    async def authorize(self, request: ToolAuthorizationRequest) -> ToolAuthorizationDecision:
        """Return what is decided about a call."""
        ...

    def timeout(self) -> float | None:
        """Return the seconds after which no answer is a denial; `None` for no limit."""
        ...


class _AllowEverything:
    """The authorizer of a program that asks nobody: every call that the policy permits is allowed.

    Example:
        >>> mn.Runtime(authorizer=mn.allow_everything)
        <Runtime 'default': providers none; tools files, read, shell, write>
    """

    async def authorize(self, request: ToolAuthorizationRequest) -> ToolAuthorizationDecision:
        return ToolAuthorizationDecision.allow()

    def timeout(self) -> float | None:
        return None

    def __repr__(self) -> str:
        return "allow_everything"


allow_everything: ToolAuthorizer = _AllowEverything()

PermissionScope = Literal["session", "project", "global"]


class PermissionQuestion(ToolAuthorizationRequest):
    """A request put to a person: may this one call run? Bound to its arguments by `arguments_hash`."""

    request_id: str
    session_id: str
    description: str
    """Why it is asked, in one line."""
    arguments_hash: str
    asked_at: float
    """Unix seconds."""
    deadline: float
    """Unix seconds; unanswered by then is a denial."""
    capabilities: tuple[str, ...] = ()


class PermissionDecision(Data):
    """A person's answer. `remember` adds a rule for `pattern` (default: exactly this subject) in that scope.

    An answer about what a call did in the sandbox is remembered for what it does inside `folders` there (default:
    those of the files that it changed).

    Example:
        >>> mn.PermissionDecision(allow=True, remember="session").by
        'user'
    """

    allow: bool
    remember: PermissionScope | None = None
    pattern: str | None = None
    folders: tuple[str, ...] | None = None
    reason: str | None = None
    by: str = "user"
    values: dict[str, Any] | None = None
    """What was filled in, by the names of the fields, where values were asked for."""
    arguments: dict[str, Any] | None = None
    """What the call may run with instead of its own arguments. Such an answer holds once."""
    user: str | None = None
    """The login name of the person who answered; filled in when the answer is taken."""
    host: str | None = None
    """The name of the machine on which they answered."""


class PermissionRule(Data):
    """A remembered answer: what `tool` may do unasked (or never) when its subject fits `pattern`.

    `*` stands for any run of characters, `?` for one, `[*]` and `[?]` for themselves; everything else is literal.

    Example:
        >>> rule = mn.allow("shell", "ls *")
        >>> rule.tool, rule.pattern, rule.allow, rule.scope
        ('shell', 'ls *', True, 'session')
    """

    id: str
    tool: str
    pattern: str
    allow: bool
    scope: PermissionScope = "session"
    scope_key: str = ""
    """The session's or project's id; empty for a global rule."""
    reason: str | None = None
    created_at: float = 0.0
    """Unix seconds."""
    times_used: int = 0
    folders: tuple[str, ...] | None = None
    """Of a rule on effects: the call runs in the sandbox, and what it changes inside these folders is kept unasked."""
    breadth: str | None = None
    """In words, what an allowance covers beyond what it looks like, if anything is known. It is not stored."""
