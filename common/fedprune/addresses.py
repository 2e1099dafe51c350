"""Whether an address stays on this machine: plaintext is for those, and for who asks for it."""

from __future__ import annotations

import ipaddress


def is_loopback(address: str) -> bool:
    """True when HOST:PORT can be reached from this machine only."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
