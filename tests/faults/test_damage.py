"""A bit that flips or a row that goes in what a run left behind is found (P16; `bench/faults.py damage` has the count)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fedprune_lab.faults import damage, replays
from fedprune_lab.faults.plan import RUN
from fedprune_lab.faults.programs import zygote


def finished(folder: Path) -> Path:
    async def played() -> list[str]:
        async with zygote() as warm:
            return (await replays.play(1, warm, folder))[0].problems

    assert asyncio.run(played()) == []
    return folder / "runs" / RUN


def test_flipped_bits_and_lost_or_swapped_rows_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished(tmp_path / "run")
    seen = damage.play(run, flips=60, rows=60, folder=tmp_path / "a")
    assert (seen.flips, seen.rows, seen.missed) == (60, 60, [])
    (run / "unknown.txt").write_text("never recorded" * 10_000)
    missed = damage.play(run, flips=20, rows=0, folder=tmp_path / "b").missed
    assert any("unknown.txt" in one for one in missed)
