"""A sealed result is whole or not there, whenever the process was killed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fedprune.errors import StoreError
from fedprune.framing import seal
from fedprune.tensor import Version
from fedprune_client.outbox import FREE, KEPT_BYTES, Outbox, Result

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


def reused(folder: Path) -> Path:
    """The file of a result that has its receipt."""
    outbox = Outbox(folder)
    put(outbox, assignment_id=6, frame=FRAME[::-1] + b"longer")
    outbox.drop("digits-1", 6)
    (path,) = folder.iterdir()
    return path


def test_the_file_of_a_result_that_has_its_receipt_takes_the_next_one(tmp_path: Path) -> None:
    path = reused(tmp_path)
    sealed = put(Outbox(tmp_path))
    assert list(tmp_path.iterdir()) == [path]
    assert Outbox(tmp_path).get("digits-1", 7) == (sealed, FRAME)
    assert Outbox(tmp_path).waiting("digits-1") == [7]


def test_a_large_file_goes(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    put(outbox, frame=bytes(KEPT_BYTES))
    outbox.drop("digits-1", 7)
    assert list(tmp_path.iterdir()) == []


def test_a_result_that_waits_is_not_written_over(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    first, second = put(outbox), put(outbox, assignment_id=8)
    again = Outbox(tmp_path)
    assert (again.get("digits-1", 7), again.get("digits-1", 8)) == ((first, FRAME), (second, FRAME))
    third = put(again, assignment_id=9)
    assert again.get("digits-1", 7) == (first, FRAME)
    assert again.get("digits-1", 9) == (third, FRAME)


def test_a_result_that_is_sealed_anew_takes_the_place_of_the_first(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    put(outbox)
    sealed = put(outbox, frame=b"other")
    assert outbox.get("digits-1", 7) == Outbox(tmp_path).get("digits-1", 7) == (sealed, b"other")


@pytest.mark.parametrize("sync", ["fsync", "fdatasync"])
def test_a_client_that_is_killed_while_it_syncs_has_the_whole_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: str
) -> None:
    def die(*args: object) -> None:
        raise Killed

    if sync == "fdatasync":
        reused(tmp_path)
    monkeypatch.setattr(os, sync, die)
    with pytest.raises(Killed):
        put(Outbox(tmp_path))
    monkeypatch.undo()
    assert Outbox(tmp_path).get("digits-1", 7) is not None
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("power_cut", [False, True])
@pytest.mark.parametrize("written", [1, 40, 300, 400, 1000, 1600])
def test_a_client_that_is_killed_while_it_writes_over_an_old_result_has_the_whole_new_one_or_none(
    tmp_path: Path, written: int, power_cut: bool
) -> None:
    """The first byte is written last; only a power cut can bring it to the disk before the others."""
    path = reused(tmp_path)
    before = path.read_bytes()
    put(Outbox(tmp_path))
    after = path.read_bytes()
    whole = json.loads(after.partition(b"\n")[0])["seal"]["size"] + after.index(b"\n") + 1
    assert written < whole
    path.write_bytes((after[:1] if power_cut else FREE) + after[1:written] + before[written:])
    outbox = Outbox(tmp_path)
    assert outbox.get("digits-1", 7) is None
    if not power_cut:
        assert outbox.waiting("digits-1") == []
    elif outbox.waiting("digits-1"):
        # Nothing but that one byte: the old result is there again, and gets its receipt again.
        assert outbox.get("digits-1", 6) is not None
        outbox.drop("digits-1", 6)
    assert put(outbox).seal == seal(FRAME)
    assert list(tmp_path.iterdir()) == [path]


def test_bytes_and_name_are_synced_before_anyone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def note(name: str) -> None:
        really = getattr(os, name)

        def sync(handle: int) -> None:
            synced.append(f"{name} {Path(os.readlink(f'/proc/self/fd/{handle}')).name}")
            really(handle)

        monkeypatch.setattr(os, name, sync)

    note("fsync")
    note("fdatasync")
    outbox = Outbox(tmp_path)
    put(outbox)
    assert synced == ["fsync 0.result", f"fsync {tmp_path.name}"]
    outbox.drop("digits-1", 7)
    put(outbox, assignment_id=8)
    assert synced[2:] == ["fdatasync 0.result"], "the name is there already"


@pytest.mark.parametrize("at", [0, 5, 40, 400, 1000])
def test_a_torn_file_is_no_result(tmp_path: Path, at: int) -> None:
    """Cut anywhere: in its first line, in the frame."""
    put(Outbox(tmp_path))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:at])
    outbox = Outbox(tmp_path)
    assert outbox.get("digits-1", 7) is None
    assert outbox.waiting("digits-1") == []
    assert put(outbox).seal == seal(FRAME)
    assert list(tmp_path.iterdir()) == [path]


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
    (tmp_path / "0.result").write_bytes(head + b"\n" + FRAME)
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
