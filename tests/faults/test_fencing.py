"""Two coordinators on one store: the second is refused, or takes over and the first writes no more."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fedprune_lab.faults import fencing
from fedprune_lab.faults.programs import zygote


@pytest.mark.parametrize("point", ["round-folded", "assignments-sent"])
def test_a_stopped_coordinator_wakes_up_fenced(point: str, tmp_path: Path) -> None:
    async def played() -> list[str]:
        async with zygote() as warm:
            return (await fencing.play(point, warm, tmp_path / "run")).problems

    assert asyncio.run(played()) == []


@pytest.mark.faults
def test_one_that_is_stopped_in_the_middle_of_a_write_is_named_and_can_be_killed(tmp_path: Path) -> None:
    async def played() -> list[str]:
        async with zygote() as warm:
            return (await fencing.play_in_a_write("accept-before-commit", warm, tmp_path / "run")).problems

    assert asyncio.run(played()) == []
