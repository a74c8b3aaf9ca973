"""Whether a provider's server is on this machine, as far as its address tells."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from mentra_nb.providers.base import Provider


def address_of(provider: Provider) -> str:
    """Return the host of the provider's server; empty if it has none."""
    try:
        return urlsplit(getattr(provider, "base_url", "")).hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine. A name other than `localhost` is not looked up."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
