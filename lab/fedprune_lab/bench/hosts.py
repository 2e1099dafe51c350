"""Hosts of a bench: network namespaces on this machine, a coordinator's and the clients', joined by `wire.Switch`.

Needs root, `ip` and /dev/net/tun. Nothing in a namespace can reach anything outside the bench. A frame is counted as
the kernel counts it at the interface: Ethernet header included, preamble and checksum not.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Self

from fedprune.errors import LocalError
from fedprune_lab.bench.wire import Switch, mac, open_tap
from fedprune_lab.link import Link

INTERFACE = "eth0"
NETWORK = "198.18.0"  # set aside for benches (RFC 2544)
GRACE_S = 10.0
FIRST_IN_LINE = 10
# Ethernet, IPv4, TCP with time stamps: what a frame weighs beside the bytes that a program sent.
HEADER_BYTES = 14 + 20 + 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What an interface has sent and received so far."""

    sent: int
    received: int


@dataclass(slots=True, kw_only=True)
class Hosts:
    """`with Hosts(links=...) as hosts`: host 0 is the coordinator's, the others are clients', each behind its link."""

    links: Sequence[Link]
    folder: Path
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _made: list[str] = field(default_factory=list)
    _switch: BaseProcess | None = None
    _near: Connection | None = None

    def __enter__(self) -> Self:
        if os.geteuid():
            raise LocalError("network namespaces need root", next_step="Run the bench as root")
        with contextlib.ExitStack() as undo:
            undo.callback(self._remove)
            taps = [self._host(number) for number in range(len(self.links))]
            self._near, far = multiprocessing.Pipe()
            switch = Switch(taps, self.links)
            self._switch = multiprocessing.get_context("fork").Process(target=self._carry, args=(switch, far))
            self._switch.start()
            undo.pop_all()
        for tap in taps:
            os.close(tap)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._running:
            process.terminate()
        for process in self._running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
            process.kill()
        self.still()
        self._remove()

    @property
    def trace(self) -> Path:
        """Where the switch writes what it delivered, once it is still."""
        return self.folder / "trace.npy"

    def still(self) -> None:
        """Stop the switch; its trace is written."""
        if self._switch is not None and self._near is not None:
            self._near.send_bytes(b"")
            self._switch.join()
            self._switch = None

    def start(self, host: int, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Run a command on a host; it does not outlive the block."""
        whole = ["ip", "netns", "exec", self._name(host), *command]
        with log.open("ab") as out:
            process = subprocess.Popen(whole, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self._running.append(process)
        return process

    def count(self, host: int) -> Count:
        """What has crossed a host's interface until now."""
        where = f"/sys/class/net/{INTERFACE}/statistics"
        command = ["ip", "netns", "exec", self._name(host), "cat", f"{where}/tx_bytes", f"{where}/rx_bytes"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        sent, received = map(int, done.stdout.split())
        return Count(sent=sent, received=received)

    @staticmethod
    def address(host: int) -> str:
        """The host's IPv4 address."""
        return f"{NETWORK}.{host + 1}"

    @staticmethod
    def _name(host: int) -> str:
        return f"fedprune-{os.getpid()}-{host}"

    def _host(self, number: int) -> int:
        name, device = self._name(number), f"fp{os.getpid()}.{number}"[:15]
        ip("netns", "add", name)
        self._made.append(name)
        tap = open_tap(device)
        ip("link", "set", device, "netns", name)
        inside = ("-n", name)
        address = ":".join(f"{byte:02x}" for byte in mac(number))
        ip(*inside, "link", "set", device, "name", INTERFACE, "address", address)
        ip(*inside, "address", "add", f"{self.address(number)}/24", "dev", INTERFACE)
        ip("netns", "exec", name, "sysctl", "-qw", f"net.ipv6.conf.{INTERFACE}.disable_ipv6=1")
        for device in ("lo", INTERFACE):
            ip(*inside, "link", "set", device, "up")
        for other in range(len(self.links)):
            if other != number:
                place = ":".join(f"{byte:02x}" for byte in mac(other))
                ip(*inside, "neighbour", "add", self.address(other), "lladdr", place, "dev", INTERFACE)
        return tap

    def _carry(self, switch: Switch, control: Connection) -> None:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(FIRST_IN_LINE))
        switch.run(control)
        switch.keep(self.trace)

    def _remove(self) -> None:
        while self._made:
            ip("netns", "delete", self._made.pop())


def ip(*arguments: str) -> None:
    """One `ip` command. Raises `LocalError` with what it said."""
    done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise LocalError(f"ip {' '.join(arguments)} failed", seen=done.stderr.strip())
