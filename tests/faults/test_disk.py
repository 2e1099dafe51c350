"""Disks that are really full: the coordinator stops and goes on, a client sits rounds out and comes back."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from fedprune_lab.faults import disk
from fedprune_lab.faults.programs import zygote

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root"),
]


def test_a_coordinator_without_room_stops_and_goes_on(tmp_path: Path) -> None:
    async def played() -> list[str]:
        async with zygote() as warm:
            return (await disk.play_coordinator(warm, tmp_path / "run")).problems

    assert asyncio.run(played()) == []


def test_a_client_without_room_sits_rounds_out_and_comes_back(tmp_path: Path) -> None:
    async def played() -> list[str]:
        async with zygote() as warm:
            return (await disk.play_client(warm, tmp_path / "run")).problems

    assert asyncio.run(played()) == []
