"""Uploads over a link that is reset and falls silent end in one receipt each, and go on where they were."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fedprune_lab.faults import links
from fedprune_lab.faults.programs import zygote


async def broken(plan: links.Plan, folder: Path) -> links.Found:
    async with zygote() as warm:
        found = await links.play(plan, warm, folder / "run")
    assert found.problems == []
    return found


def test_resets_cost_at_most_a_chunk_each(tmp_path: Path) -> None:
    found = asyncio.run(broken(links.Plan(breaks=2, bytes_per_s=500e3), tmp_path))
    assert found.breaks > 0
    assert found.extra_chunks <= found.breaks


@pytest.mark.faults
@pytest.mark.timeout(500)
def test_an_11_m_parameter_upload_over_10_mbit_cut_five_times(tmp_path: Path) -> None:
    plan = links.Plan(inputs=2800, hidden=3900, every_s=8.0, bytes_per_s=1.25e6)
    assert asyncio.run(broken(plan, tmp_path)).extra_chunks <= 5
