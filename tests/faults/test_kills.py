"""A coordinator that is killed, wherever it stands, comes back by the same command and ends with the same model.

A handful in the ordinary run; 40 kills and one at each failpoint with `pytest -m faults`; `make faults` plays all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from fedprune.failpoints import Action
from fedprune_lab.faults.campaign import Trial, campaign, point_trials, random_trials
from fedprune_lab.faults.scenarios import ELSEWHERE
from fedprune_server.failpoints import POINTS

# The instants where most would be lost: one of each sort.
HARDEST = (
    "open-round-after-commit",
    "accept-after-commit",
    "freeze-after-commit",
    "commit-version-before-commit",
    "version-adopted",
    "evaluation-closed",
    "run-told",
)


def kept(trials: Iterable[Trial], folder: Path) -> int:
    """Play them; every promise must have been kept. Returns how often a coordinator died."""
    found = asyncio.run(campaign(trials, folder, print))
    assert [f.problems for f in found if f.problems] == []
    return sum(f.deaths for f in found)


def test_killed_where_it_hurts(tmp_path: Path) -> None:
    assert kept(point_trials(HARDEST, hits=[1]), tmp_path) == len(HARDEST)


def test_a_full_disk_stops_it_and_nothing_is_half_done(tmp_path: Path) -> None:
    names = ["accept-before-commit", "blob-before-sync", "file-before-rename"]
    assert kept(point_trials(names, hits=[1], action=Action.ENOSPC), tmp_path) == len(names)


def test_killed_at_random(tmp_path: Path) -> None:
    assert kept(random_trials(first_seed=1000, kills=5), tmp_path) > 0


def test_asked_to_end_at_random(tmp_path: Path) -> None:
    """A rolling restart: every client works on, nothing is lost, and nobody waits longer than half a minute."""
    assert kept(random_trials(first_seed=2000, kills=5, asked=True), tmp_path) > 0


@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_killed_at_random_thirty_times(tmp_path: Path) -> None:
    """Twice as many are planned: a run that is over sooner than its kills were drawn for misses the rest."""
    assert kept(random_trials(first_seed=0, kills=60), tmp_path) >= 30


@pytest.mark.faults
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("action", [Action.KILL, Action.ENOSPC, Action.EIO])
def test_killed_or_refused_at_every_point(action: Action, tmp_path: Path) -> None:
    names = [n for n, point in POINTS.items() if n not in ELSEWHERE and (action is Action.KILL or point.fails)]
    assert kept(point_trials(names, hits=[1], action=action), tmp_path) == len(names)
