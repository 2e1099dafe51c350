"""What a machine can tell of itself: packages that are missing, disks that are full or cannot be written, clocks."""

from __future__ import annotations

import shutil
import time
from collections import namedtuple
from pathlib import Path

import pytest

from fedprune.checkup import machine
from fedprune.checkup.findings import State

Usage = namedtuple("Usage", "total used free")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.versions().state is State.GOOD
    monkeypatch.setattr(machine, "PACKAGES", ("numpy", "nosuchpackage"))
    found = machine.versions()
    assert (found.state, found.next_step) == (State.BAD, "pip install nosuchpackage")


def test_a_folder_that_is_not_there_yet_is_judged_by_where_it_will_be(tmp_path: Path) -> None:
    found = machine.disk(tmp_path / "a" / "b", what="runs")
    assert found.state in (State.GOOD, State.WARNING)  # a slow disk is no matter of this test
    assert "free" in found.seen
    assert not (tmp_path / "a").exists()


def test_a_disk_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10, 9, 1))
    found = machine.disk(tmp_path, what="runs")
    assert found.state is State.WARNING
    assert "Make room: runs need" in found.next_step


def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    found = machine.disk(Path("/proc/self"), what="runs")
    assert found.state is State.BAD
    assert "the right to write to it" in found.next_step


def test_a_clock_that_is_far_behind_or_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_is_adrift", lambda: False)
    assert machine.clock().state is State.GOOD
    monkeypatch.setattr(machine, "_is_adrift", lambda: True)
    assert "NTP" in machine.clock().next_step
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert machine.clock().state is State.BAD


def test_the_kernel_answers_for_its_clock() -> None:
    assert machine._is_adrift() in (True, False)
