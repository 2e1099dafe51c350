"""A power cut at any byte: what was acknowledged is there, and what is there holds together.

SQLite appends to its log and syncs it at some commits. A cut leaves everything up to the last sync, and of what was
written since then any part, with pages missing in between. Each such state is made from the log of one journey.
"""

from __future__ import annotations

import random
import shutil
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fedprune_server.store import SqliteStore, Work, verify

from . import crashing

CUTS = 100
PAGE = 4096
LOG = "state.db-wal"


@dataclass
class Journey:
    """A finished journey that was never closed: its directory, and what was known at which length of the log."""

    path: Path
    synced: list[int] = field(default_factory=list)
    acknowledged: list[tuple[int, str]] = field(default_factory=list)

    @property
    def length(self) -> int:
        log = self.path / LOG
        return log.stat().st_size if log.exists() else 0


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    made = Journey(tmp_path_factory.mktemp("power") / "state")

    def passed(point: str) -> None:
        level = store._database._write.execute("PRAGMA synchronous").fetchone()[0]
        if point.endswith("-after-commit") and level == 2:
            made.synced.append(made.length)

    store = SqliteStore(made.path, failpoint=passed)
    made.synced.append(made.length)
    crashing.journey(store, lambda name: made.acknowledged.append((made.length, name)))
    copy = shutil.copytree(made.path, made.path.with_name("copy"))
    store.close()
    made.path = copy
    return made


def cut(journey: Journey, rng: random.Random, to: Path) -> int:
    """The state directory after a power cut; returns how many bytes of the log surely survived."""
    shutil.copytree(journey.path, to)
    log = bytearray((to / LOG).read_bytes())
    end = rng.randint(journey.synced[0], len(log))
    sure = journey.synced[bisect_right(journey.synced, end) - 1]
    del log[end:]
    for start in range(sure, end, PAGE):
        if rng.random() < 0.3:
            log[start : min(start + PAGE, end)] = bytes(min(PAGE, end - start))
    (to / LOG).write_bytes(log)
    (to / "state.db-shm").unlink(missing_ok=True)
    return sure


def kept(store: SqliteStore) -> set[str]:
    """round/client of every receipt."""
    if not store.runs():
        return set()
    rounds = range(1, crashing.ROUNDS + 1)
    return {f"{n}/{r.client}" for n in rounds for r in store.receipts(crashing.RUN, n, Work.TRAIN)}


def test_the_journey_syncs_what_it_tells_and_not_everything(journey: Journey) -> None:
    assert len(journey.acknowledged) == crashing.CLIENTS * crashing.ROUNDS
    assert all(length in journey.synced for length, _ in journey.acknowledged)
    commits = verify(journey.path).links
    assert len(journey.synced) < commits


@pytest.mark.parametrize("seed", range(5))
def test_nothing_acknowledged_is_lost(journey: Journey, tmp_path: Path, seed: int) -> None:
    assert lose_power(journey, tmp_path, seed, cuts=CUTS // 5) == []


@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_nothing_acknowledged_is_lost_in_two_thousand_cuts(journey: Journey, tmp_path: Path) -> None:
    """P2."""
    assert lose_power(journey, tmp_path, seed=5, cuts=2000) == []


def lose_power(journey: Journey, tmp_path: Path, seed: int, *, cuts: int) -> list[str]:
    """The cuts after which something acknowledged was lost, the journey ended otherwise, or `verify` found fault."""
    rng = random.Random(seed)
    undisturbed = None
    broken = []
    for number in range(cuts):
        state = tmp_path / str(number)
        sure = cut(journey, rng, state)
        store = SqliteStore(state, durable=False)
        lost = {name for length, name in journey.acknowledged if length <= sure} - kept(store)
        crashing.journey(store, lambda name: None)
        ended = crashing.outcome(store)
        store.close()
        undisturbed = undisturbed or ended
        problems = verify(state).problems
        if lost or ended != undisturbed or problems:
            broken.append(f"cut {number} of seed {seed}: {lost} lost, ended with {ended}, {problems}")
        shutil.rmtree(state)
    return broken
