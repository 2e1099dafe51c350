"""Rounds and runs made up for the tests of this room."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fedprune.report import RoundReport, RunReport
from fedprune.traffic import Traffic

RAW = Traffic(up=1000, down=1000)


MakeRound = Callable[..., RoundReport]
MakeRun = Callable[..., RunReport]


@pytest.fixture
def make_round() -> MakeRound:
    """A round whose socket moved `moved` bytes each way, ten of them beside the payload."""
    return _round


@pytest.fixture
def make_dense() -> MakeRun:
    """A dense run: 500 bytes each way in every round, accuracy 0.901, 0.902, ..."""

    def make(rounds: int = 12, *, socket: bool = True) -> RunReport:
        return _run("dense", [_round(n, socket=socket) for n in range(1, rounds + 1)])

    return make


@pytest.fixture
def make_pruned() -> MakeRun:
    """The same, but pruned to an eighth in round 2: 500 bytes each way before, 40 after."""

    def make(rounds: int = 12, *, socket: bool = True) -> RunReport:
        first = [_round(1, socket=socket), _round(2, socket=socket, changed=True, density=0.125)]
        rest = [_round(n, moved=40, socket=socket, density=0.125) for n in range(3, rounds + 1)]
        return _run("pruned", first + rest)

    return make


def _run(name: str, rounds: list[RoundReport]) -> RunReport:
    return RunReport.of(name=name, outcome="finished", rounds=rounds, accuracy_source="coordinator test data")


def _round(
    number: int, *, moved: int = 500, changed: bool = False, socket: bool = True, density: float = 1.0
) -> RoundReport:
    return RoundReport(
        round=number,
        accuracy=0.9 + number / 1000,
        density=density,
        density_of_all=density,
        seconds=0.25,
        payload=Traffic(up=moved - 10, down=moved - 10),
        socket=Traffic(up=moved, down=moved) if socket else None,
        dense_equivalent=RAW,
        metrics={"accuracy": 0.9 + number / 1000},
        mask_changed=changed,
    )
