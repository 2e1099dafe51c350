"""The residual moves with the receipt, and only for what it belongs to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedprune.errors import StoreError
from fedprune.feedback import Memory
from fedprune.mask import Mask
from fedprune.tensor import Schema, TensorSpec
from fedprune_client.residual import Belonging, ResidualFile

SCHEMA = Schema(tensors=(TensorSpec(name="w", shape=(2, 3)),))
FULL = Mask.full(SCHEMA)


def memory(value: float) -> Memory:
    return Memory(
        residual={"w": np.full((2, 3), value, np.float32)}, velocity={"w": np.full((2, 3), -value, np.float32)}
    )


class Client:
    """A client's folder, opened anew for each call, as after a restart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []

    @property
    def file(self) -> ResidualFile:
        return ResidualFile(folder=self.folder, say=self.said.append)

    def stage(self, assignment: int, *, round_: int = 1) -> None:
        belongs = Belonging(run_id="r", schema_digest=SCHEMA.digest, epoch=0, round=round_)
        self.file.stage(memory(1.0), memory(5.0), belongs, assignment)

    def load(self, *, run_id: str = "r", epoch: int = 0, round_: int = 2, mask: Mask = FULL) -> Memory:
        return self.file.load(SCHEMA, mask, run_id=run_id, epoch=epoch, round_=round_)


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path)


def test_there_is_nothing_at_first(client: Client) -> None:
    assert client.load().residual == {}


@pytest.mark.parametrize(("accepted", "value"), [(True, 1.0), (False, 5.0)])
def test_the_receipt_decides_which_memory_stays(client: Client, accepted: bool, value: float) -> None:
    client.stage(7)
    assert client.load().residual == {}, "nothing moves before the receipt"
    client.file.settle(7, accepted=accepted)
    found = client.load()
    assert (found.residual["w"] == value).all()
    assert (found.velocity["w"] == -value).all()
    assert len(list(client.folder.iterdir())) == 1


def test_a_receipt_that_comes_twice_moves_once(client: Client) -> None:
    client.stage(7)
    client.file.settle(7, accepted=True)
    client.file.settle(7, accepted=False)
    assert (client.load().residual["w"] == 1.0).all()


def test_what_was_abandoned_and_is_answered_late_does_not_take_the_memory_back(client: Client) -> None:
    """A client that gave round 1 up, went on, and was restarted: the answer to round 1 comes after that to round 2."""
    client.stage(7, round_=1)
    client.stage(8, round_=2)
    client.file.settle(8, accepted=True)
    client.file.settle(7, accepted=False)
    assert (client.load(round_=3).residual["w"] == 1.0).all()
    assert len(list(client.folder.iterdir())) == 1


def test_a_round_that_is_done_again_counts_by_its_last_answer(client: Client) -> None:
    client.stage(7, round_=1)
    client.file.settle(7, accepted=False)
    client.stage(8, round_=1)
    client.file.settle(8, accepted=True)
    assert (client.load().residual["w"] == 1.0).all()


def test_an_absence_is_counted_in_rounds(client: Client) -> None:
    client.stage(7, round_=1)
    client.file.settle(7, accepted=True)
    assert client.load(round_=4).residual["w"][0, 0] == pytest.approx(0.81)


def test_after_a_long_absence_it_is_dropped_and_said(client: Client) -> None:
    client.stage(7, round_=1)
    client.file.settle(7, accepted=True)
    assert client.load(round_=23).residual["w"][0, 0] == pytest.approx(0.9**21)
    assert client.load(round_=24).residual == {}
    assert "it lay for 22 rounds" in client.said[0]


@pytest.mark.parametrize("other", [{"run_id": "another"}, {"epoch": 1}])
def test_a_memory_of_something_else_is_dropped_and_said(client: Client, other: dict[str, object]) -> None:
    client.stage(7)
    client.file.settle(7, accepted=True)
    assert client.load(**other).residual == {}  # type: ignore[arg-type]  # one keyword of the two
    assert "2.45" in client.said[0]
    assert client.load().residual == {}, "it does not come back"


def test_a_new_mask_takes_its_part_and_says_so(client: Client) -> None:
    client.stage(7)
    client.file.settle(7, accepted=True)
    alive = np.array([[True, False, True], [True, True, True]])
    found = client.load(mask=Mask(schema=SCHEMA, version=1, alive={"w": alive}))
    assert found.residual["w"].tolist() == [[1, 0, 1], [1, 1, 1]]
    assert "norm 1" in client.said[0]


def test_a_damaged_file_says_what_to_do(client: Client) -> None:
    client.stage(7)
    client.file.settle(7, accepted=True)
    path = next(client.folder.iterdir())
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(StoreError, match="Delete"):
        client.load()


def test_a_full_disk_says_what_to_do_and_leaves_nothing_half(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(StoreError, match=r"cannot keep the residual .*No space left.*Free space in"):
        client.stage(7)
    assert list(client.folder.iterdir()) == []
