"""A sealed result is whole or not there, whenever the process was killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedprune.errors import LocalError, StoreError
from fedprune.framing import seal
from fedprune.tensor import Version
from fedprune_client.outbox import Outbox, Result

FRAME = b"an update\nwith a line break" * 50


def put(outbox: Outbox, *, run_id: str = "digits-1", assignment_id: int = 7, frame: bytes = FRAME) -> Result:
    facts = {"run_id": run_id, "assignment_id": assignment_id, "examples": 30, "metrics": {"loss": 0.25}}
    return outbox.put(frame, **facts, work_s=1.5, residual_norm=0.5, version=Version(model=3, mask=1))


def test_what_is_sealed_is_there_after_a_restart(tmp_path: Path) -> None:
    sealed = put(Outbox(tmp_path))
    again = Outbox(tmp_path)
    assert again.get("digits-1", 7) == (sealed, FRAME)
    assert sealed.seal == seal(FRAME)
    assert again.waiting("digits-1") == [7]
    assert again.get("digits-1", 8) is None


def test_a_result_without_bytes(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    assert outbox.get("digits-1", 7) is None
    assert outbox.get("digits-1", put(outbox, frame=b"").assignment_id) is not None


def test_a_receipt_lets_it_go(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    put(outbox)
    outbox.drop("digits-1", 7)
    outbox.drop("digits-1", 7)
    assert outbox.get("digits-1", 7) is None
    assert outbox.waiting("digits-1") == []


def test_results_of_other_runs_go_with_them(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    put(outbox)
    put(outbox, run_id="digits-2")
    outbox.clear(keep_run="digits-2")
    assert (outbox.get("digits-1", 7), outbox.waiting("digits-2")) == (None, [7])


def test_waiting_results_come_oldest_first(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    for number in (10, 9, 100):
        put(outbox, assignment_id=number)
    assert outbox.waiting("digits-1") == [9, 10, 100]


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize(("call", "whole"), [("replace", False), ("fsync", True)])
def test_a_client_that_is_killed_while_it_seals_has_the_whole_result_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, whole: bool
) -> None:
    def die(*args: object) -> None:
        raise Killed

    monkeypatch.setattr(os, call, die)
    with pytest.raises(Killed):
        put(Outbox(tmp_path))
    monkeypatch.undo()
    assert (Outbox(tmp_path).get("digits-1", 7) is not None) == whole
    assert len(list(tmp_path.iterdir())) == whole


def test_bytes_and_name_are_synced_before_anyone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    really = os.fsync

    def fsync(handle: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        really(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    put(Outbox(tmp_path))
    assert synced == ["digits-1-7.result", tmp_path.name]


@pytest.mark.parametrize("at", [0, 5, 40, 400, 1000])
def test_a_torn_file_is_no_result(tmp_path: Path, at: int) -> None:
    """Cut anywhere: in its first line, in the frame."""
    put(Outbox(tmp_path))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:at])
    outbox = Outbox(tmp_path)
    assert outbox.get("digits-1", 7) is None
    assert not path.exists()
    assert put(outbox).seal == seal(FRAME)


def test_a_single_flipped_bit_is_seen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(Outbox(tmp_path))
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))
    assert Outbox(tmp_path).get("digits-1", 7) is None
    assert "damaged: its work is done again" in caplog.text


@pytest.mark.parametrize("head", [b"[]", b"{}", b'{"seal": {"size": 1, "sha256": "x"}}', b"\xff\xfe", b"7"])
def test_a_first_line_that_is_none(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "digits-1-7.result").write_bytes(head + b"\n" + FRAME)
    assert Outbox(tmp_path).get("digits-1", 7) is None


def test_a_full_disk_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"this client: cannot seal a result .*No space left.*Free space in"):
        put(Outbox(tmp_path))
    assert list(tmp_path.iterdir()) == [], "half a result would be in the way of the next one"


def test_a_disk_that_cannot_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(Outbox(tmp_path))

    def broken(path: Path) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", broken)
    with pytest.raises(StoreError, match=r"cannot read a sealed result .*Input/output error.*mend the disk"):
        Outbox(tmp_path).get("digits-1", 7)


def test_a_file_of_another_name_is_left_alone(tmp_path: Path) -> None:
    put(Outbox(tmp_path))
    (tmp_path / "digits-1-seven.result").write_bytes(b"not ours")
    assert Outbox(tmp_path).waiting("digits-1") == [7]


@pytest.mark.parametrize("run_id", ["../other", "a/b", "", "a b", "\0"])
def test_a_run_id_cannot_leave_the_folder(tmp_path: Path, run_id: str) -> None:
    with pytest.raises(LocalError, match="not a run id"):
        Outbox(tmp_path).get(run_id, 1)
