"""A first turn in a browser: the demo is asked with `await`, then with rules and without. Prints JSON."""

import json
import os
from pathlib import Path

import mentra_nb as mn
from mentra_nb import errors
from mentra_nb.chat.engine import engine

os.chdir(Path.home())
Path("sales.csv").write_text("month,amount\n2026-03,2400\n")
chat = mn.Chat("page", model="demo")
first = await chat.aask("What can you do here?")  # noqa: F704, PLE1142
again = await chat.aask("And now?")  # noqa: F704, PLE1142
rule = chat.deny("read", "*.csv", reason="not now")
waited = chat.ask("Once more?")
try:
    list(chat.stream("hi"))
    streamed = ""
except errors.ConfigurationError as error:
    streamed = str(error)
lines = [
    json.loads(line)
    for file in engine().runtime.audit.folder.glob("**/*.jsonl")
    for line in file.open()
    if line.strip()
]
print(
    "SAID",
    json.dumps(
        {
            "first": first.text,
            "tools": [[call.name, call.is_error] for call in first.tools],
            "again": again.text,
            "waited": waited.text.partition(",")[0],
            "rule": rule.pattern,
            "history": len(chat.history),
            "streamed": streamed,
            "kinds": sorted({line["event_type"] for line in lines}),
        }
    ),
)
