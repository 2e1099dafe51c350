"""What a machine can tell of itself: packages that are missing, disks that are full or cannot be written, clocks."""

from __future__ import annotations

import shutil
import time
from collections import namedtuple
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedprune.checkup import machine
from fedprune.checkup.findings import State
from fedprune.pki import keys
from fedprune.pki.certificates import CLIENT_LIFE, issue, new_issuing, new_root
from fedprune.pki.credentials import Credentials
from fedprune.pki.subject import Role, Subject

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


@pytest.mark.parametrize(
    ("age", "state"),
    [(timedelta(), State.GOOD), (CLIENT_LIFE * 0.7, State.WARNING), (CLIENT_LIFE * 1.1, State.BAD)],
)
def test_a_certificate_by_its_age(age: timedelta, state: State, tmp_path: Path) -> None:
    began = datetime.now(UTC) - age
    root = new_root("wards", began)
    issuing = new_issuing(root, "wards", began)
    key, subject = keys.new_key(), Subject(federation="wards", role=Role.TRAINER, name="ward-7")
    leaf = issue(issuing, key.public_key(), subject, now=began, life=CLIENT_LIFE, hosts=("fl.example.org",))
    Credentials(key=key, chain=(leaf, issuing.certificate), trust=(root.certificate,)).save(tmp_path)
    found = machine.certificate(tmp_path, next_step="Ask for an invitation")
    assert found.state is state
    assert "ward-7" in found.seen
    assert ("Ask for an invitation" in found.next_step) == (state is not State.GOOD)
    assert ("for fl.example.org" in found.seen) == (state is not State.BAD)


def test_a_folder_without_credentials(tmp_path: Path) -> None:
    found = machine.certificate(tmp_path, next_step="Ask")
    assert found.state is State.BAD
    assert "tls.key" in found.seen
