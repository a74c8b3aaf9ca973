"""Who works here: the user of the operating system, and the machine."""

from __future__ import annotations

import getpass
import os
import socket
from functools import cache
from typing import NamedTuple


class Person(NamedTuple):
    """A person at a machine, as records and the shared state name them."""

    os_user: str
    """The login name; the user's number where it has no name, as in some containers."""
    host: str
    """The name of the machine."""


@cache
def person() -> Person:
    """Return the person at this process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):
        user = str(os.getuid()) if hasattr(os, "getuid") else ""
    return Person(user, socket.gethostname())
