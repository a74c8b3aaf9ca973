"""What a fenced command wanted and did not get, as far as the fence can tell."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from mentra_nb.sandbox.executor import CommandRequest, ExecOutput

_COUNTERS = {
    "Ip.OutNoRoutes": "another machine",
    "Ip6OutNoRoutes": "another machine",
    "Tcp.AttemptFails": "a service of this machine",
    "Udp.NoPorts": "a service of this machine",
    "Udp6NoPorts": "a service of this machine",
}
"""Counters of the fence's own network, in which only the command ever was, that rise when it reaches for another."""
_PHRASE = "(Read-only file system|Permission denied)"
_REFUSED = re.compile(
    rf"""['"‘`]([^'"‘’`\n]+)['"’][^'"’\n:]*: {_PHRASE}|(?:^|\s)([^\s:'"‘’`()]+): {_PHRASE}|{_PHRASE}: ['"]([^'"\n]+)""",
    re.MULTILINE,
)
"""As programs in C, shells and Python say it: a name in quotes may have blanks, and words after it."""
_OUTSIDE_WORK = re.compile(r"(Invalid cross-device link)")
MAX_WANTS = 10


def wants(
    output: ExecOutput, network: str, space: str, difference: dict[str, Any], workspace: str, request: CommandRequest
) -> list[tuple[str, str]]:
    """Return pairs of a kind and a name.

    What is known for certain is told by the kernel's counters; of a command that failed, its messages are read as well.

    Args:
        output: What it wrote, and how it ended.
        network: The counters of its network.
        space: The free blocks of the memory it wrote to.
        difference: What `difference.py` found.
        workspace: The folder it worked in.
        request: What was run.
    """
    counted = _counters(network)
    found = {("network", where): None for name, where in _COUNTERS.items() if counted.get(name)}
    if space.strip() == "0":
        found["space", "more than may be written"] = None
    for path in difference.get("special", ()):
        found["special file", f"{workspace}/{path}"] = None
    if output.status_code != 0:
        for match in _REFUSED.finditer(output.stderr):
            said = match[2] or match[4] or match[5]
            name = match[1] or match[3] or match[6]
            found["writing" if said.startswith("Read-only") else "opening", name] = None
        if _OUTSIDE_WORK.search(output.stderr):
            found["renaming", "a folder"] = None
    return list(found)[:MAX_WANTS]


def _counters(text: str) -> dict[str, int]:
    """Return the counters of `/proc/net/snmp`, whose lines come in pairs, and of `snmp6`."""
    found: dict[str, int] = {}
    lines = text.splitlines()
    for names, values in pairwise(lines):
        group = names.partition(":")[0]
        if ":" in names and values.startswith(f"{group}:"):
            pairs = zip(names.split()[1:], values.split()[1:], strict=False)
            found |= {f"{group}.{name}": int(value) for name, value in pairs if value.lstrip("-").isdigit()}
    for line in lines:
        if line.count(":") == 0 and len(parts := line.split()) == 2 and parts[1].isdigit():
            found[parts[0]] = int(parts[1])
    return found
