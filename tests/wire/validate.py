"""What the two APIs demand of a request body, as far as a client can get it wrong."""

import json


def check_responses(body):
    """Roles and part types fit, every call has an id and JSON object arguments, outputs answer calls, each once."""
    assert body["stream"] is True
    assert body["store"] is False
    assert ("tool_choice" not in body) or body["tools"]
    for tool in body.get("tools", []):
        assert set(tool) <= {"type", "name", "description", "parameters", "strict"}
        assert tool["strict"] is False
    pending = []
    for item in body["input"]:
        match item["type"]:
            case "message":
                assert not pending, "a message stands between calls and their outputs"
                wanted = {"user": {"input_text", "input_image"}, "assistant": {"output_text"}}[item["role"]]
                assert item["content"]
                assert {part["type"] for part in item["content"]} <= wanted
            case "function_call":
                assert isinstance(json.loads(item["arguments"]), dict)
                assert item["call_id"] not in pending
                pending.append(item["call_id"])
            case "function_call_output":
                assert isinstance(item["output"], str)
                pending.remove(item["call_id"])
            case "reasoning":
                assert item["encrypted_content"]
            case other:
                raise AssertionError(other)
    assert not pending, "calls without outputs"


def check_chat(body):
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
