"""What `doctor` can tell of the way to another machine below gRPC: its name, its port, proxies. Blocking, with limits."""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedprune.checkup.findings import Finding, bad, good, warning

SLOW_NAME_S = 1.0
PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
EXCEPTIONS = ("no_grpc_proxy", "no_proxy")

Lookup = Callable[[str, int], Sequence[Any]]


def lookup(host: str, port: int) -> Sequence[Any]:
    """The addresses of a name, as the system's own resolver gives them."""
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


def name(host: str, port: int, *, timeout_s: float, resolve: Lookup = lookup) -> tuple[Finding, list[str]]:
    """Whether the name has addresses, and which; a resolver that never answers is given up after `timeout_s`."""
    answer: queue.SimpleQueue[Sequence[Any] | OSError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answer.put(resolve(host, port))
        except OSError as error:
            answer.put(error)

    began_s = time.monotonic()
    threading.Thread(target=ask, daemon=True).start()  # nobody can interrupt the system's resolver
    try:
        found = answer.get(timeout=timeout_s)
    except queue.Empty:
        step = "Use the address itself, put the name in /etc/hosts, or mend the name server in /etc/resolv.conf"
        return bad("name", f"{host}: no answer within {timeout_s:g} s", step), []
    if isinstance(found, OSError):
        return bad("name", f"{host}: {found.strerror}", "Check the spelling, or use the address itself"), []
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    took_s = time.monotonic() - began_s
    seen = f"{host} is {', '.join(addresses)}, after {1000 * took_s:.0f} ms"
    if took_s > SLOW_NAME_S:
        return warning("name", seen, "The name server is slow; the address itself, or /etc/hosts, is not"), addresses
    return good("name", seen), addresses


def port(addresses: Sequence[str], port: int, *, timeout_s: float, what: str = "port") -> tuple[Finding, list[str]]:
    """Whether something listens there, on which of the addresses, and how long a round trip takes."""
    open_, troubles, seen = [], [], []
    for address in addresses:
        began_s = time.monotonic()
        try:
            socket.create_connection((address, port), timeout=timeout_s).close()
        except OSError as error:
            troubles.append(_trouble(error))
            seen.append(f"{address}: {(error.strerror or 'no answer').lower()}")
        else:
            open_.append(address)
            seen.append(f"{address}: open, round trip {1000 * (time.monotonic() - began_s):.1f} ms")
    text = f"{port} on {'; '.join(seen)}"
    if not open_:
        return bad(what, text, troubles[0]), []
    if troubles:
        return warning(what, text, f"Some addresses of the name do not answer. {troubles[0]}"), open_
    return good(what, text), open_


def proxy(host: str, environment: Mapping[str, str] = os.environ) -> Finding:
    """Whether gRPC would go through a proxy: it heeds these variables, in lower case only."""
    used = next(((key, environment[key]) for key in PROXIES if environment.get(key)), None)
    if used is None:
        return good("proxy", "none is set")
    spared = [part.strip() for key in EXCEPTIONS for part in environment.get(key, "").split(",") if part.strip()]
    if any(part == "*" or host == part.lstrip(".") or host.endswith(f".{part.lstrip('.')}") for part in spared):
        return good("proxy", f"{used[0]} is set, but not for {host}")
    return warning(
        "proxy",
        f"{used[0]} sends every connection through {used[1].rpartition('@')[2]}",
        f"It must allow CONNECT to this port; else say no_grpc_proxy={host}",
    )


def _trouble(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "The machine is there but nothing listens: is the coordinator up, on this port and not on its loopback?"
    if isinstance(error, TimeoutError):
        return "Nothing came back: open this port in the firewalls on the way, or check the address"
    return "There is no way to this address: check it, and this machine's network or VPN"
