"""Checks of a request body: what each API requires, and a client can get wrong."""

from __future__ import annotations

import json
import re
from typing import Any


def check_responses(body: Any) -> None:
    """Roles and part types fit, every call has an id and JSON object arguments, outputs answer calls, each once."""
    assert body["stream"] is True
    assert body["store"] is False
    assert ("tool_choice" not in body) or body["tools"]
    for tool in body.get("tools", []):
        if tool != {"type": "tool_search"}:
            assert set(tool) <= {"type", "name", "description", "parameters", "strict", "defer_loading"}
            assert isinstance(tool["strict"], bool)
    pending = []
    for item in body["input"]:
        match item["type"]:
            case "message":
                assert not pending, "a message stands between calls and their outputs"
                assert item["content"]
                if item["role"] == "assistant":
                    assert isinstance(item["content"], str)
                else:
                    assert {part["type"] for part in item["content"]} <= {"input_text", "input_image"}
            case "function_call":
                assert isinstance(json.loads(item["arguments"]), dict)
                assert item["call_id"] not in pending
                pending.append(item["call_id"])
            case "function_call_output":
                assert isinstance(item["output"], str) or {part["type"] for part in item["output"]} <= {
                    "input_text",
                    "input_image",
                }
                pending.remove(item["call_id"])
            case "reasoning":
                assert item.get("encrypted_content") or item.get("signature")
            case "tool_search_call" | "tool_search_output":
                assert item["execution"] == "server"
            case other:
                raise AssertionError(other)
    assert not pending, "calls without outputs"


def check_chat(body: Any) -> None:
    """System first, roles alternate, every call is answered directly after its message, once."""
    assert body["stream"] is True
    assert ("tool_choice" not in body) or body["tools"]
    pending, before = [], None
    for at, message in enumerate(body["messages"]):
        role = message["role"]
        if pending:
            assert role == "tool", "something stands between calls and their results"
        match role:
            case "system":
                assert at == 0
            case "user":
                assert before != "user"
                assert message["content"]
            case "assistant":
                assert message["content"] is None or message["content"]
                pending = [call["id"] for call in message.get("tool_calls", [])]
                assert len(set(pending)) == len(pending)
                assert message["content"] or pending
                for call in message.get("tool_calls", []):
                    assert isinstance(json.loads(call["function"]["arguments"]), dict)
            case "tool":
                assert isinstance(message["content"], str)
                pending.remove(message["tool_call_id"])
        before = role
    assert not pending, "calls without results"


def check_anthropic(body: Any) -> None:
    """A limit is set, roles alternate, calls are answered first thing in the next message, at most four cache marks."""
    assert body["stream"] is True
    assert body["max_tokens"] >= 1
    assert ("tool_choice" not in body) or body["tools"]
    if body.get("thinking"):
        assert body.get("temperature") in (None, 1)
        assert body.get("tool_choice", {}).get("type") not in ("any", "tool")
        assert 1024 <= body["thinking"].get("budget_tokens", 1024) < body["max_tokens"]
    for tool in body.get("tools", []):
        known = {"name", "description", "input_schema", "strict", "defer_loading", "cache_control"}
        assert tool.get("type") or set(tool) <= known
        assert not (tool.get("defer_loading") and "cache_control" in tool)
    blocks = [block for message in body["messages"] for block in message["content"]]
    marked = [each for each in (*body.get("system", []), *body.get("tools", []), *blocks) if "cache_control" in each]
    assert len(marked) <= 4
    pending, before = [], None
    for message in body["messages"]:
        assert message["role"] != before
        before = message["role"]
        content = message["content"]
        assert content
        results = [block for block in content if block["type"] == "tool_result"]
        assert content[: len(results)] == results, "results come first"
        assert sorted(result["tool_use_id"] for result in results) == sorted(pending)
        pending = []
        for block in content:
            match block["type"]:
                case "text":
                    assert block["text"].strip()
                case "image":
                    assert before == "user"
                    assert block["source"]["type"] in ("base64", "url")
                case "tool_use":
                    assert before == "assistant"
                    assert re.fullmatch(r"[A-Za-z0-9_-]+", block["id"])
                    assert isinstance(block["input"], dict)
                    pending.append(block["id"])
                case "tool_result":
                    assert before == "user"
                    assert block["content"] or not block.get("is_error")
                case "thinking":
                    assert block["signature"]
                    assert "cache_control" not in block
                case "redacted_thinking":
                    assert block["data"]
                case other:
                    assert other.startswith(("server_", "tool_search_")), other
        assert len(set(pending)) == len(pending)
    assert not pending, "calls without results"


def check_gemini(body: Any) -> None:
    """Two roles in turns, no empty part, and after calls as many responses, of the same names, ids and order of ids."""
    assert set(body) <= {"systemInstruction", "toolConfig", "generationConfig", "tools", "contents"}
    assert ("toolConfig" not in body) or body["tools"]
    for declaration in body.get("tools", [{"functionDeclarations": []}])[0]["functionDeclarations"]:
        assert set(declaration) <= {"name", "description", "parametersJsonSchema"}
    pending, before = [], None
    for content in body["contents"]:
        role = content["role"]
        assert role in ("user", "model")
        assert role != before
        before = role
        assert content["parts"]
        responses = [part["functionResponse"] for part in content["parts"] if "functionResponse" in part]
        assert all("functionResponse" in part for part in content["parts"][: len(responses)]), "responses come first"
        answered = sorted((each["name"], each.get("id") or "") for each in responses)
        assert answered == sorted(pending)
        pending = []
        for part in content["parts"]:
            if "functionCall" in part:
                assert role == "model"
                assert isinstance(part["functionCall"]["args"], dict)
                pending.append((part["functionCall"]["name"], part["functionCall"].get("id") or ""))
            elif "functionResponse" in part:
                assert role == "user"
                assert set(part["functionResponse"]["response"]) <= {"output", "error"}
                assert all(set(each) == {"inlineData"} for each in part["functionResponse"].get("parts", []))
            elif "text" in part:
                assert part["text"] or part.get("thoughtSignature")
            else:
                assert set(part) & {"inlineData", "fileData", "executableCode", "codeExecutionResult"}
    assert not pending, "calls without responses"
