"""A client that is killed comes back with its sealed result: nothing is counted twice, nothing sealed is done again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fedprune_lab.faults import clients
from fedprune_lab.faults.programs import zygote


async def killed(plan: clients.Plan, folder: Path) -> clients.Found:
    async with zygote() as warm:
        found = await clients.play(plan, warm, folder / "run")
    assert found.problems == []
    return found


def test_a_few_kills(tmp_path: Path) -> None:
    assert asyncio.run(killed(clients.Plan(seed=18, kills=3, rounds=5), tmp_path)).kills > 0


@pytest.mark.faults
def test_a_client_that_is_stopped_stalls_only_itself(tmp_path: Path) -> None:
    found = asyncio.run(killed(clients.Plan(stops=3, rounds=40, deadline_s=2.0), tmp_path))
    assert (found.kills, found.problems) == (0, [])


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_twenty_kills(tmp_path: Path) -> None:
    assert asyncio.run(killed(clients.Plan(seed=1, kills=20, rounds=120), tmp_path)).kills == 20
