"""Every subcommand and option, a row each. Parsing, help, completion and answers to open questions all read it."""

from __future__ import annotations

from mentra_nb.notebook.commands import (
    answers,
    cells,
    conversations,
    feedback,
    jobs,
    memories,
    models,
    record,
    rules,
    session,
    setup,
    tasks,
    trust,
)
from mentra_nb.notebook.commands.command import Command, Context, Option, Words, one_of, say
from mentra_nb.notebook.commands.help import help_text
from mentra_nb.notebook.commands.planned import PLANNED
from mentra_nb.notebook.typed_as import WORDS

OPTIONS = (
    Option(("-m", "--model"), "model for this turn, as provider/model", "NAME", complete=lambda names: names.models()),
    Option(
        ("-s", "--session"),
        "named conversation (default: the notebook's own)",
        "NAME",
        complete=lambda names: names.sessions(unnamed=False),
    ),
    Option(
        ("-t", "--tool"),
        "functions of this notebook the model may call",
        "NAME",
        many=True,
        complete=lambda names: names.functions(),
    ),
    Option(("--no-tools",), "let the model call no tool in this turn"),
    Option(
        ("-i", "--include"),
        "what to hand over, as @NAME in the question: a variable, Out[3], cell:-1, err, ./file",
        "NAME",
        many=True,
        complete=lambda names: names.references(),
    ),
    Option(("-o", "--out"), "store the reply under this name", "NAME"),
    Option(("-b", "--budget"), "the most this turn may use: 0.50usd, 20k, 5tools, 10min", "AMOUNT"),
    Option(("--dry",), "show what would be sent, its tokens and price, and send nothing"),
    Option(("-q", "--quiet"), "show only the answer"),
    Option(("-v", "--verbose"), "also show tool results and thinking"),
    Option(
        ("--as",),
        "the answer as a value: a type of this notebook, list[str], df, json",
        "TYPE",
        complete=one_of(*WORDS),
    ),
    Option(("--code",), "put the Python of the answer into a new cell below, without running it"),
    Option(("--keep",), "show the stored answer of this cell if its question did not change; nothing is sent then"),
    Option(("--fresh",), "ask again, whatever is stored (see keep_answers)"),
    Option(("--more",), "go on from the end, instead of replacing this cell's earlier turn"),
    Option(("--new",), "begin the notebook's own conversation anew"),
    Option(("--fork",), "go on in a copy of the notebook's own conversation"),
    Option(("--plan",), "only read, and end in a plan; approved on its card, it is carried out"),
    Option(("--at",), "ask in place of question N of %mentra hide; what came after it is left out", "N"),
    Option(("--bg",), "go on in the background: the cell ends at once, and the answer comes into it"),
)
FLAGS = {flag: option for option in OPTIONS for flag in option.flags}

_FILE = r"\.(?:md|ipynb|jsonl)"
SQL_BEGINS = ("select", "with", "from", "explain")
"""The first words of a query for `log`."""


def _help(_context: Context, words: Words) -> None:
    say(help_text(COMMANDS, OPTIONS, words["word"]))


STATUS = Command("", "", "", "what is set up here, and what to try", session.status)
"""`%mentra` alone."""

COMMANDS = (
    Command(
        "help",
        r"help(?: (?P<word>[\w-]+))?",
        "help [WORD]",
        "what you can type",
        _help,
        complete=(lambda names: names.commands(),),
    ),
    Command(
        "model",
        r"model(?: (?P<name>\S+))?",
        "model [NAME]",
        "show or set the model",
        models.model,
        complete=(lambda names: names.models(),),
    ),
    Command(
        "models",
        r"models(?: (?P<text>(?!--)\S+))?(?P<all> --all)?",
        "models [TEXT] [--all]",
        "models you have keys for, and local servers",
        models.models,
        complete=(one_of("--all"), one_of("--all")),
    ),
    Command(
        "alias",
        r"alias(?: (?P<name>\S+)(?: (?P<target>\S+))?)?",
        "alias [NAME [TARGET]]",
        "show or set short names for models",
        models.alias,
        complete=(one_of(), lambda names: names.models()),
    ),
    Command("tools", "tools", "tools", "what the model may call, and whether it asks", rules.tools),
    Command("skills", "skills", "skills", "instructions the model may read, and where they are", rules.skills),
    Command(
        "rules",
        r"rules(?:(?P<suggest> suggest)| accept (?P<accept>\d{1,4})|(?P<revoke> revoke(?: (?P<id>\S+))?))?",
        "rules [revoke N or ID|suggest|accept N]",
        "remembered answers; revoke deletes one; suggest: rules from your own answers, to accept",
        rules.rules,
        complete=(one_of("revoke", "suggest", "accept"), lambda names: names.rules()),
    ),
    Command(
        "allow",
        rf"allow{answers.WHICH}(?: (?P<how>once|always(?: (?!because\b)(?P<pattern>\S.*?))?))?"
        r"(?: because (?P<reason>\S.*))?",
        "allow [N] [always [PATTERN]] [because …]",
        "answer the open question, or number N in %mentra: yes; always: and whatever fits PATTERN from now on",
        answers.answer_listed,
        complete=(one_of("once", "always", "because"), one_of("because")),
        answer=answers.allowed,
        short={
            "a": "allow",
            "y": "allow",
            "yes": "allow",
            "k": "allow",
            "keep": "allow",
            "w": "allow always",
            "always": "allow always",
        },
    ),
    Command(
        "deny",
        rf"deny{answers.WHICH}(?: because (?P<reason>\S.*))?",
        "deny [N] [because …]",
        "answer the open question, or number N in %mentra: no",
        answers.answer_listed,
        complete=(one_of("because"),),
        answer=answers.denied,
        short={"d": "deny", "n": "deny", "no": "deny", "discard": "deny"},
    ),
    Command(
        "answer",
        rf"answer{answers.WHICH}(?P<values>(?: {answers.VALUE})+)",
        "answer [N] NAME=VALUE …",
        "answer the open question, or number N in %mentra, that asks for values",
        answers.answer_listed,
        answer=answers.filled_in,
    ),
    Command(
        "stop",
        "stop(?P<all> --all)?",
        "stop [--all]",
        "stop the turn that is running; --all: background commands too",
        jobs.stop,
        complete=(one_of("--all"),),
        answer=jobs.stopped,
        short={"s": "stop"},
    ),
    Command(
        "say",
        r"say(?: (?P<text>\S.*))?",
        "say TEXT",
        "say something to the model while its turn runs; type it in another cell",
        jobs.say_to_turn,
        holds=jobs.is_for_a_turn,
    ),
    Command(
        "resume",
        r"resume(?: (?P<name>\S+))?",
        "resume [NAME|ID]",
        "go on with an earlier conversation, and with its turn that was interrupted",
        session.resume,
        complete=(lambda names: names.sessions(unnamed=True),),
    ),
    Command("sessions", "sessions", "sessions", "the conversations of this project", session.sessions),
    Command(
        "history",
        r"""history(?: (?:(?P<word>[^\s"']\S*)|["'](?P<text>[^"']+)["']))?""",
        'history [WORD|"TEXT"]',
        "the questions and answers of this project that contain it",
        conversations.history,
    ),
    Command(
        "hide",
        r"hide(?: (?P<number>[1-9]\d{0,3}))?",
        "hide [N]",
        "the questions of this conversation by number; with N, send that one and its answer no more",
        conversations.hide,
    ),
    Command(
        "edit",
        r"edit(?: (?P<number>[1-9]\d{0,3}))?",
        "edit N",
        "put question N into a new cell, to ask it anew in its place",
        conversations.edit,
    ),
    Command(
        "fork",
        r"fork(?: (?P<name>[\w-]+))?",
        "fork [NAME]",
        "copy this conversation under a name; without one, go on in the copy",
        conversations.fork,
    ),
    Command(
        "export",
        rf"""export(?: (?:(?P<path>[^\s"']+{_FILE})|"(?P<quoted>[^"]+{_FILE})")(?P<overwrite> --overwrite)?)?""",
        "export PATH [--overwrite]",
        "write this conversation to a file: .md, .ipynb or .jsonl",
        conversations.export,
        complete=(one_of(), one_of("--overwrite")),
    ),
    Command(
        "forget",
        r"forget(?: (?P<id>session-[\w-]+))?",
        "forget ID",
        "delete a conversation of this project; what the record has of it stays",
        conversations.forget,
        complete=(lambda names: names.session_ids(),),
    ),
    Command(
        "jobs",
        r"jobs(?P<stop> stop(?: (?P<id>[1-9]\d*|(?:bg|turn)-\d+))?)?",
        "jobs [stop N or ID]",
        "commands and turns in the background; stop ends one",
        jobs.jobs,
        complete=(one_of("stop"),),
    ),
    Command(
        "memories",
        r"memories(?: (?P<change>pin|forget) (?P<which>\S+))?",
        "memories [pin|forget N or ID]",
        "what is remembered of earlier turns; pin keeps one first, forget erases it",
        memories.memories,
        complete=(one_of("pin", "forget"),),
    ),
    Command("tasks", "tasks", "tasks", "the task board of this conversation", tasks.tasks),
    Command(
        "undo",
        r"undo(?: (?P<what>(?:run|undo)-[\w-]+))?",
        "undo [ID]",
        "take back what the last turn did to files and variables, or undo an undo",
        session.undo,
    ),
    Command("diff", "diff", "diff", "what the last turn changed in files and variables", conversations.diff),
    Command("fix", "fix", "fix", "explain the last error; its corrected cell comes below, not run", cells.fix),
    Command(
        "code",
        r"code(?: (?P<number>[1-9]\d{0,3}))?",
        "code [N]",
        "put the answer's Python, or its block N, into a new cell below; not run",
        cells.code,
    ),
    Command(
        "cells",
        "cells",
        "cells",
        "put what the last turn ran into a new cell, so that the notebook works without the agent",
        cells.cells,
    ),
    Command(
        "good",
        f"good{feedback.NOTE}",
        "good [because …]",
        "the last answer was good: kept in the record, for mn.feedback()",
        feedback.good,
        complete=(one_of("because"),),
    ),
    Command(
        "bad",
        f"bad{feedback.NOTE}",
        "bad [because …]",
        "the last answer was bad: kept in the record, for mn.feedback()",
        feedback.bad,
        complete=(one_of("because"),),
    ),
    Command("last", "last", "last", "show the last answer again", session.last),
    Command(
        "usage",
        r"usage(?: (?:--by|by) (?P<by>\w+))?",
        "usage [--by model|day|session|tool]",
        "tokens, cost and time",
        record.usage,
        complete=(one_of("--by"), one_of("model", "day", "session", "provider", "tool")),
    ),
    Command("budgets", "budgets", "budgets", "what may still be used: limits, spent, left", record.budgets),
    Command(
        "log",
        rf"log(?: (?P<sql>(?i:{'|'.join(SQL_BEGINS)})\b.+))?",
        "log [SQL]",
        "the record, as a table",
        record.log,
    ),
    Command("check", "check", "check", "what works here, and how to fix what does not", setup.check),
    Command("config", "config", "config", "the settings and where each comes from", setup.config),
    Command(
        "trust",
        r"trust(?: (?P<which>[1-9]\d*|all)|(?P<revoke> revoke(?: (?P<number>[1-9]\d*))?))?",
        "trust [N|all|revoke N]",
        "what came with this folder and does not hold until you trust it",
        trust.trust_command,
        complete=(one_of("all", "revoke"),),
    ),
    *PLANNED,
)
BY_NAME = {command.name: command for command in COMMANDS}
