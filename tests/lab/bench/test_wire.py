"""The switch between hosts, with socket pairs in the place of TAP devices: who gets which frame, and what is kept."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path

import numpy as np

from fedprune_lab.bench.wire import DOWN, UP, Switch, mac
from fedprune_lab.link import Link

BROADCAST = b"\xff" * 6


def frame(to: bytes, content: bytes) -> bytes:
    return to + mac(9) + b"\x08\x00" + content


@dataclass
class Bench:
    """The far ends of the cables, the coordinator's first."""

    switch: Switch
    ends: list[socket.socket]


@contextmanager
def switched(*links: Link) -> Iterator[Bench]:
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in links]
    for near, far in pairs:
        near.setblocking(False)
        far.settimeout(100)
    switch = Switch([near.fileno() for near, _ in pairs], links)
    tell, control = Pipe()
    thread = threading.Thread(target=switch.run, args=(control,))
    thread.start()
    try:
        yield Bench(switch, [far for _, far in pairs])
    finally:
        tell.send_bytes(b"")
        thread.join()
        for near, far in pairs:
            near.close()
            far.close()
        tell.close()
        control.close()


def test_frames_reach_whom_they_name_and_leave_a_trace(tmp_path: Path) -> None:
    with switched(Link(), Link(), Link(delay_s=0.001)) as bench:
        coordinator, first, second = bench.ends
        coordinator.send(frame(mac(2), b"to the second"))
        assert second.recv(99) == frame(mac(2), b"to the second")
        first.send(frame(mac(0), b"up"))
        assert coordinator.recv(99) == frame(mac(0), b"up")
    bench.switch.keep(tmp_path / "trace.npy")
    kept = np.load(tmp_path / "trace.npy")
    assert [(int(f["client"]), int(f["way"]), int(f["bytes"])) for f in kept] == [(2, DOWN, 27), (1, UP, 16)]


def test_what_goes_to_everyone_goes_to_no_one() -> None:
    with switched(Link(), Link()) as bench:
        bench.ends[1].send(frame(BROADCAST, b"who has"))
        bench.ends[1].send(frame(mac(0), b"after it"))
        assert bench.ends[0].recv(99) == frame(mac(0), b"after it")


def test_a_line_keeps_its_order_and_drops_what_would_wait_too_long() -> None:
    slow = Link(rate_bit_per_s=8 * 10_000)
    with switched(Link(), slow) as bench:
        for number in range(12):
            bench.ends[1].send(frame(mac(0), bytes([number]) * 986))
        arrived = [bench.ends[0].recv(2000)[14] for _ in range(12 - _dropped(bench.switch))]
    assert arrived == sorted(arrived)
    assert bench.switch.dropped
    assert arrived[0] == 0


def _dropped(switch: Switch) -> int:
    """Frames that were dropped once the switch has seen all twelve: those that are under way have their turn."""
    while switch.dropped + switch.accepted < 12:
        os.sched_yield()
    return switch.dropped
