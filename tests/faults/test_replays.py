"""What was submitted once has no effect when it comes again (P15; `bench/faults.py replays` has the full count)."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fedprune_lab.faults import replays
from fedprune_lab.faults.programs import zygote


def test_replays_before_and_after_a_restart_have_no_effect(tmp_path: Path) -> None:
    async def played() -> tuple[list[str], set[str]]:
        async with zygote() as warm:
            found, done = await replays.play(100, warm, tmp_path / "run")
            return found.problems, set(done)

    assert asyncio.run(played()) == ([], set(replays.WAYS))
