"""Tool calls for models in the process, whatever chat template their file has.

A Chat Completions body becomes plain text with a grammar, and the text of the answer becomes calls again. Response
formats become grammars too. Pure.

Small models seldom keep to a format that is only described to them. So an answer with tools on offer is constrained to
one of two shapes while it is sampled: an array of calls whose arguments fit the schema of their tool, or prose. Each
call is one line, so that its end is seen while it streams.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mentra_nb.errors import InvalidRequest
from mentra_nb.ids import new_id
from mentra_nb.providers.local import gbnf

CALL = '{{"name":{name},"arguments":'
MOST_CALLS = 8
"""The most calls in one answer."""
PROSE = r'([^[{` \t\r\n] | "`" [^` \t\r\n] | "```" [^[`j{ \t\r\n]) .*'
"""Text that begins neither as JSON nor as a fence around JSON."""
ANSWER = "Now answer my question from this result, in plain words."
"""Added after results: without it, small models go on calling."""
TEMPERATURE = 0.2
"""The default: small models wander at the customary 0.8."""

_BETWEEN, _ENDS = ",\n", ("}]", "},", "}")
_HEAD = re.compile(r'\[?\{"name":("(?:[^"\\]|\\.)*"),"arguments":(?=.)')


def adapted(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body with its tools described in words. Raises `InvalidRequest` for tools with a format."""
    tools = _offered(body)
    if _repeats(body["messages"]):
        tools = []
    result = {key: value for key, value in body.items() if key not in ("tools", "tool_choice", "parallel_tool_calls")}
    result.setdefault("temperature", TEMPERATURE)
    result["chat_template_kwargs"] = {"enable_thinking": False}
    result["messages"] = messages = _in_words(body["messages"])
    if body["messages"][-1]["role"] == "tool":
        messages[-1]["content"] = _joined(messages[-1]["content"], ANSWER)
    if (format := result.pop("response_format", None)) is not None:
        if tools:
            raise InvalidRequest("local takes tools or response_format, not both; leave one out")
        result["grammar"] = gbnf.grammar(format["json_schema"]["schema"])
    if not tools:
        return result
    at_most = 1 if body.get("parallel_tool_calls") is False else MOST_CALLS
    result["grammar"] = grammar(tools, at_most, only_calls=body.get("tool_choice") not in (None, "auto"))
    if messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": ""})
    messages[0] = {"role": "system", "content": f"{messages[0]['content']}\n\n{_explained(tools, at_most)}".strip()}
    return result


def grammar(tools: Iterable[Mapping[str, Any]], at_most: int = MOST_CALLS, *, only_calls: bool = False) -> str:
    """Return a grammar for an array of calls of the `tools` (name and parameters), or prose."""
    calls, rules = [], dict[str, str]()
    for number, tool in enumerate(tools):
        arguments = gbnf.Shape({"type": "object", **tool.get("parameters", {})}, f"arguments-{number}")
        calls.append(f'{gbnf.quoted(CALL.format(name=json.dumps(tool["name"])))} {arguments.expression} "}}"')
        rules |= arguments.rules
    rules["call"] = " | ".join(calls)
    rules["root"] = f'"[" call (",\\n" call){{0,{at_most - 1}}} "]"' + f" | {PROSE}" * (not only_calls)
    return gbnf.rules(rules)


def _offered(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    choice = body.get("tool_choice")
    functions = [tool["function"] for tool in body.get("tools", ())] if choice != "none" else []
    if isinstance(choice, dict):
        functions = [function for function in functions if function["name"] == choice["function"]["name"]]
    return functions


def _repeats(messages: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether the last call repeats an earlier one of this turn: a small model would go on repeating it."""
    calls: list[tuple[str, str]] = []
    for message in messages:
        if message["role"] == "user":
            calls = []
        functions = [call["function"] for call in message.get("tool_calls", ())]
        calls += [(function["name"], function["arguments"]) for function in functions]
    return bool(calls) and calls[-1] in calls[:-1]


def _explained(tools: Iterable[Mapping[str, Any]], at_most: int) -> str:
    """Return the description of the tools.

    The words were found by trial: an example with two calls, or a mention of several, makes small models call any tool.
    """
    listed = "\n".join(json.dumps({k: v for k, v in tool.items() if k != "strict"}) for tool in tools)
    several = "When two things are asked, it has two calls.\n" if at_most > 1 else ""
    return (
        f"You have these tools:\n{listed}\n\n"
        f"To call tools, reply with only a JSON array of {'calls' if at_most > 1 else 'one call'}:\n"
        f'[{{"name":<tool name>,"arguments":<JSON object>}}]\n{several}'
        "Greetings and what you know yourself need no tool: reply in plain words. "
        "When a tool's result is there, answer from it."
    )


def _in_words(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages with calls and results as text and alternating roles, which every template supports."""
    result: list[dict[str, Any]] = []
    called: dict[str, str] = {}
    for message in messages:
        role, text = message["role"], message.get("content") or ""
        calls = []
        for call in message.get("tool_calls", ()):
            name, arguments = call["function"]["name"], call["function"]["arguments"]
            called[call["id"]] = f"{name} {arguments}"
            calls.append(CALL.format(name=json.dumps(name)) + arguments + "}")
        if calls:
            text = "\n".join([text, f"[{_BETWEEN.join(calls)}]"]).strip()
        if role == "tool":
            role, text = "user", f"Result of {called.get(message['tool_call_id'], 'the tool')}:\n{text}"
        if result and result[-1]["role"] == role:
            text = _joined(result.pop()["content"], text)
        result.append({"role": role, "content": text})
    return result


def _joined(first: str | list[Any], second: str | list[Any]) -> str | list[Any]:
    """Return two contents as one; contents with images are lists of parts."""
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return _parts(first) + _parts(second)


def _parts(content: str | list[Any]) -> list[Any]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


class CallReader:
    """Turns the chunks of one constrained answer into those of a server that knows tool calls.

    An answer that was cut keeps the arguments of its last call as far as they go; a call without any is dropped.
    """

    def __init__(self) -> None:
        self._is_prose = False
        self._calls = 0
        self._arguments: list[str] | None = None
        """The pieces of arguments passed on for the current call."""
        self._held = ""
        """Text not passed on yet: it may be the beginning of a call, or follow its arguments."""

    def feed(self, chunk: dict[str, Any]) -> dict[str, Any]:
        choices = chunk.get("choices")
        if not choices:
            return chunk
        choice = choices[0]
        delta, is_last = dict(choice.get("delta") or {}), bool(choice.get("finish_reason"))
        self._held += delta.pop("content", None) or ""
        if not self._is_prose and (calls := list(self._read(is_last))):
            delta["tool_calls"] = calls
        if self._held and not self._calls and (is_last or self._held[0] not in "[{"):
            self._is_prose = True
        if self._is_prose:
            delta["content"], self._held = self._held, ""
        return {**chunk, "choices": [{**choice, "delta": delta}]}

    def _read(self, is_last: bool) -> Iterator[dict[str, Any]]:
        """Take the pieces of calls out of the held text, and yield them."""
        while True:
            if self._arguments is None:
                found = _HEAD.match(self._held)
                if found is None:
                    return
                self._arguments, self._held = [], self._held[found.end() :]
                function = {"name": json.loads(found[1]), "arguments": ""}
                yield {"index": self._calls, "id": new_id("call"), "type": "function", "function": function}
                self._calls += 1
            line, is_ended, rest = self._held.partition("\n")
            piece, after = line[:-2], line[-2:]
            if is_last and not is_ended:
                piece, after = self._without_end(line), ""
            if piece:
                self._arguments.append(piece)
                yield {"index": self._calls - 1, "function": {"arguments": piece}}
            if not is_ended:
                self._held = after
                return
            self._arguments, self._held = None, rest

    def _without_end(self, line: str) -> str:
        """Return the arguments in a last line: the line may be complete, or cut within them."""
        for end in _ENDS:
            piece = line.removesuffix(end)
            if piece != line and _is_json("".join([*(self._arguments or ()), piece])):
                return piece
        return line


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
