"""An MCP server for tests that misbehaves, in the older protocol, without the SDK: `python mcp_hostile.py MODE`."""

import json
import sys
from typing import Any

MODE = sys.argv[1]
PLAIN = {"type": "object", "properties": {}}
LISTED = 0


def send(**message: Any) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def notify(method: str, **params: Any) -> None:
    send(method=method, params=params)


def tools() -> list[dict[str, Any]]:
    act = {"name": "act", "description": "Act.", "inputSchema": PLAIN}
    deep: dict[str, Any] = PLAIN
    for _ in range(60):
        deep = {"type": "object", "properties": {"a": deep}}
    match MODE:
        case "some" | "many" | "too-many":
            number = {"some": 50, "many": 51, "too-many": 5_000}[MODE]
            return [{"name": f"tool-{n}", "description": "word " * 100, "inputSchema": PLAIN} for n in range(number)]
        case "names":
            names = ["act", "act", "a\x1b[2Jct", "a\u202ect", "", " ", "x" * 5_000, "a\nb", "ä", "../../etc", "\x00"]
            return [{"name": name, "description": f"\x1b]0;x\x07{name}", "inputSchema": PLAIN} for name in names]
        case "schemas":
            given = [deep, {"type": "object", "properties": {"a": {"$ref": "#/$defs/none"}}}]
            return [{"name": f"tool-{n}", "description": "", "inputSchema": each} for n, each in enumerate(given)]
        case "broken-schema":
            return [act, {"name": "other", "inputSchema": {"type": "object", "properties": 3}}]
    return [act]


def listed(id: Any, params: dict[str, Any]) -> None:
    global LISTED
    LISTED += 1
    match MODE:
        case "dies-in-list":
            sys.exit(1)
        case "hangs-in-list":
            return
        case "endless-pages":
            send(id=id, result={"tools": tools(), "nextCursor": str(LISTED)})
        case "not-a-list":
            send(id=id, result={"tools": {"name": "act"}})
        case _:
            send(id=id, result={"tools": tools()})


def called(id: Any, params: dict[str, Any]) -> None:
    text = "done"
    match MODE:
        case "large":
            text = "x" * 50_000_000
        case "endless-line":
            while True:
                sys.stdout.write("x" * 1_000_000)
        case "errors":
            for _ in range(640):
                sys.stderr.write("x" * 99_999 + "\n")
            sys.stderr.write("no room left\n")
            sys.stderr.flush()
        case "progress":
            token = params.get("_meta", {}).get("progressToken")
            for n in range(20_000):
                notify("notifications/progress", progressToken=token, progress=n, message=f"\x1b[2J{n}")
        case "storm":
            for _ in range(5_000):
                notify("notifications/tools/list_changed")
        case "logs":
            for _ in range(5_000):
                notify("notifications/message", level="error", data="x" * 100)
        case "pictures" | "broken-pictures":
            picture = {"type": "image", "mimeType": "image/png", "data": ("!" if MODE != "pictures" else "A") * 1000}
            return send(id=id, result={"content": [picture] * 30})
        case "large-once" if params.get("arguments"):
            text = "x" * 20_000_000
        case "junk":
            sys.stdout.write("not json\n{}\n[1, 2]\nnull\n\n" + '{"jsonrpc": "2.0", "id": "nobody", "result": 1}\n')
        case "odd-answer":
            return send(id=id, result={"content": [{"type": "hologram", "data": 1}, 3]})
        case "asks-for-sampling":
            send(id=999, method="sampling/createMessage", params={"messages": [], "maxTokens": 9})
        case "asks-for-roots":
            send(id=999, method="roots/list")
    send(id=id, result={"content": [{"type": "text", "text": text}]})
    return None


def answer(message: dict[str, Any]) -> None:
    id, method, params = message.get("id"), message.get("method"), message.get("params") or {}
    if method == "initialize":
        if MODE == "hangs":
            return
        if MODE == "says-and-hangs":
            sys.stderr.write("\x1b[2Jwaiting for the database\n")
            sys.stderr.flush()
            return
        if MODE == "junk":
            sys.stdout.write("Starting up...\n\x1b[31mready\n" + "y" * 100_000 + "\n")
        version = "1999-01-01" if MODE == "old" else params["protocolVersion"]
        offers = {} if MODE == "nothing" else {"tools": {"listChanged": True}}
        send(
            id=id,
            result={
                "protocolVersion": version,
                "capabilities": offers,
                "serverInfo": {"name": "hostile", "version": "1"},
            },
        )
    elif method == "tools/list":
        listed(id, params)
    elif method == "tools/call":
        called(id, params)
    elif id is not None and method is not None:
        send(id=id, error={"code": -32601, "message": "no such method \x1b[2J"})


if MODE == "floods":
    while True:
        sys.stdout.write("junk " * 1000 + "\n")
for line in sys.stdin:
    answer(json.loads(line))
