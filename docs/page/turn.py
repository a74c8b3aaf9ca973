"""Run a turn of the demo in the page. The value is the reply as HTML, and how often each kind of event is on record."""

import importlib
import json
import os
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, "/packages")
importlib.invalidate_caches()

import mentra_nb as mn  # noqa: E402

os.chdir(Path.home())
Path("sales.csv").write_text("month,region,amount\n2026-02,north,1150\n2026-03,north,2400\n2026-04,south,1180\n")
reply = await mn.aask("What can you do here?", model="demo")  # noqa: F704, PLE1142
record = Path(os.environ["MENTRA_HOME"], "record")
lines = [line for file in record.glob("**/*.jsonl") for line in file.read_text().splitlines() if line]
kinds = Counter(json.loads(line)["event_type"] for line in lines)
[reply._repr_mimebundle_()["text/html"], sorted(kinds.items())]
