"""Tool calls for models in the process, whatever chat template their file has: how a Chat Completions body says them
as plain text under a grammar, and how that text is read back as calls. Pure.

Small models seldom keep to a format they are only told of, so an answer with tools on offer is held to one of two
shapes while it is sampled: a call whose arguments fit the tool's schema, or prose.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from mentra_nb.errors import InvalidRequest
from mentra_nb.identity import new_id

CALL = '{{"name":{name},"arguments":'
PROSE = r"/([^{`\s]|`[^`\s]|```[^`j{\s])(.|\n)*/"
"""Anything that begins neither as a call nor as a fence around JSON."""
TEMPERATURE = 0.2
"""When the request names none: small models wander at the customary 0.8."""

_HEAD = re.compile(r'\s*\{"name":("(?:[^"\\]|\\.)*"),"arguments":')


def adapted(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body for a model that is told of its tools in words. Raises `InvalidRequest` for tools with a format."""
    tools = _offered(body)
    if _repeats(body["messages"]):
        tools = []
    result = {key: value for key, value in body.items() if key not in ("tools", "tool_choice", "parallel_tool_calls")}
    result.setdefault("temperature", TEMPERATURE)
    result["chat_template_kwargs"] = {"enable_thinking": False}
    result["messages"] = messages = _in_words(body["messages"])
    if body["messages"][-1]["role"] == "tool":
        messages[-1]["content"] += "\n\nNow answer my question from this result, in plain words."
    if not tools:
        return result
    if "response_format" in body:
        raise InvalidRequest("a local model takes tools or a response format, not both; leave one out")
    only_calls = body.get("tool_choice") not in (None, "auto")
    result["grammar"] = grammar(tools, only_calls=only_calls)
    if messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": ""})
    messages[0] = {"role": "system", "content": f"{messages[0]['content']}\n\n{_explained(tools)}".strip()}
    return result


def grammar(tools: Iterable[Mapping[str, Any]], *, only_calls: bool = False) -> str:
    """A call of one of the `tools` (name and parameters), or prose, in the Lark dialect of llguidance."""
    rules, names = [], []
    for number, tool in enumerate(tools):
        begin = json.dumps(CALL.format(name=json.dumps(tool["name"])))
        options = {"whitespace_flexible": False, "lenient": True}
        schema = json.dumps({**tool.get("parameters", {}), "x-guidance": options})
        rules += [f'call_{number}: {begin} args_{number} "}}"', f"args_{number}: %json {schema}"]
        names.append(f"call_{number}")
    start = " | ".join(names if only_calls else [*names, "prose"])
    return "\n".join(["%llguidance {}", f"start: {start}", f"prose: {PROSE}" * (not only_calls), *rules]) + "\n"


def _offered(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    choice = body.get("tool_choice")
    functions = [tool["function"] for tool in body.get("tools", ())] if choice != "none" else []
    if isinstance(choice, dict):
        functions = [function for function in functions if function["name"] == choice["function"]["name"]]
    return functions


def _repeats(messages: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the last call said what one before it in this turn had said: a small model would go on like that."""
    calls: list[tuple[str, str]] = []
    for message in messages:
        if message["role"] == "user":
            calls = []
        functions = [call["function"] for call in message.get("tool_calls", ())]
        calls += [(function["name"], function["arguments"]) for function in functions]
    return bool(calls) and calls[-1] in calls[:-1]


def _explained(tools: Iterable[Mapping[str, Any]]) -> str:
    listed = "\n".join(json.dumps({k: v for k, v in tool.items() if k != "strict"}) for tool in tools)
    return (
        f"You have these tools:\n{listed}\n\n"
        "To call a tool, reply with only a JSON object with its name and arguments:\n"
        '{"name":<tool name>,"arguments":<JSON object>}\n'
        "Greetings and what you know yourself need no tool: reply in plain words. "
        "When a tool's result is there, answer from it."
    )


def _in_words(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Calls and their results as text, in turns that alternate: every template knows these."""
    said: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    for message in messages:
        role, text = message["role"], message.get("content") or ""
        for call in message.get("tool_calls", ()):
            function = call["function"]
            names[call["id"]] = function["name"]
            written = CALL.format(name=json.dumps(function["name"])) + function["arguments"] + "}"
            text = f"{text}\n{written}".strip()
        if role == "tool":
            role, text = "user", f"Result of {names.get(message['tool_call_id'], 'the tool')}:\n{text}"
        if said and said[-1]["role"] == role:
            text = f"{said.pop()['content']}\n\n{text}"
        said.append({"role": role, "content": text})
    return said


class CallReader:
    """Turns the chunks of one constrained answer into those of a server that knows tool calls."""

    def __init__(self) -> None:
        self._is = "undecided"
        self._held = ""
        """Text not passed on yet: what may become a call, or the last character of its arguments."""

    def feed(self, chunk: dict[str, Any]) -> dict[str, Any]:
        choices = chunk.get("choices")
        if not choices:
            return chunk
        choice = choices[0]
        delta, finish = choice.get("delta") or {}, choice.get("finish_reason")
        text = delta.pop("content", None) or ""
        delta |= self._read(text)
        if finish:
            if self._is == "call" and self._held == "}":
                finish = "tool_calls" if finish == "stop" else finish
            else:  # cut short: what was held belongs to it
                delta |= self._piece(self._held)
        return {**chunk, "choices": [{**choice, "delta": delta, "finish_reason": finish}]}

    def _read(self, text: str) -> dict[str, Any]:
        text, self._held = self._held + text, ""
        if self._is == "undecided":
            found = _HEAD.match(text)
            if found is not None:
                self._is, text = "call", text[found.end() :]
                self._held = text[-1:]
                function = {"name": json.loads(found[1]), "arguments": text[:-1]}
                return {"tool_calls": [{"index": 0, "id": new_id("call"), "type": "function", "function": function}]}
            if not text.strip() or text.lstrip().startswith("{"):
                self._held = text
                return {}
            self._is = "prose"
        if self._is == "call":
            text, self._held = text[:-1], text[-1:]
        return self._piece(text)

    def _piece(self, text: str) -> dict[str, Any]:
        if not text:
            return {}
        if self._is == "call":
            return {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}
        return {"content": text}
