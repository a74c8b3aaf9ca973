"""mentra-nb: the mentra agent runtime in a notebook."""

from __future__ import annotations

__version__ = "0.1.0"
