"""Calls are told apart by how much of the core there was beside them, never by their own time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fedprune_lab.bench import pace as module
from fedprune_lab.bench.pace import CALMEST, pace


class Machine:
    """A clock of CPU time that a call moves on, and loops that take as long as they are told to."""

    def __init__(self, loops: list[float], calls: list[float]) -> None:
        self.cpu_s = 0.0
        self._loops = iter(loops)
        self._calls: Iterator[float] = iter(calls)

    def process_time(self) -> float:
        return self.cpu_s

    def monotonic(self) -> float:
        return self.cpu_s

    def loop(self) -> float:
        return next(self._loops)

    def call(self) -> None:
        self.cpu_s += next(self._calls)


def test_the_calmest_calls_are_those_beside_the_fastest_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = [(2.0, 1.0)] * 6  # fast although the core was shared: it does not count as calm
    calm = [(1.0, 5.0)] * (CALMEST - 1) + [(0.5, 6.0)]
    beside = [*busy, *calm]
    machine = Machine([loop for loop, _ in beside for _ in range(2)], [spent for _, spent in beside])
    monkeypatch.setattr(module, "time", machine)
    monkeypatch.setattr(module, "_loop_seconds", machine.loop)
    seen = pace(machine.call, for_seconds=sum(spent for _, spent in beside))
    assert seen.calls == len(beside)
    assert seen.seconds == 5.0
    assert seen.calm_seconds == 5.0
    assert seen.share == 0.5, "most of the calm calls had half of what the calmest had"


def test_a_slow_call_is_made_often_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine([1.0] * 2 * CALMEST, [10.0] * CALMEST)
    monkeypatch.setattr(module, "time", machine)
    monkeypatch.setattr(module, "_loop_seconds", machine.loop)
    assert pace(machine.call, for_seconds=1.0).calls == CALMEST
