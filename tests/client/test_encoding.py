"""What is sealed: whole and exact without a plan, or compressed with both outcomes staged beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedprune.assignment import Assignment
from fedprune.codec import Content, UpdateReader, decode_update
from fedprune.errors import LocalError, UpdateError
from fedprune.feedback import Memory, decode_delta
from fedprune.mask import Mask
from fedprune.tensor import Role, Schema, TensorSpec, Version
from fedprune.work import TrainWork, UploadPlan
from fedprune_client.encoding import check, encode
from fedprune_client.replica import Replica
from fedprune_client.residual import ResidualFile

SCHEMA = Schema(
    tensors=(
        TensorSpec(name="hidden", shape=(12, 10)),
        TensorSpec(name="last", shape=(3, 12), role=Role.FREE),
        TensorSpec(name="bias", shape=(3,), role=Role.FREE),
        TensorSpec(name="mean", shape=(3,), role=Role.BUFFER),
    )
)
WEIGHTS = ("hidden", "last", "bias")
TERNARY = UploadPlan(values="ternary", top=0.1, error_feedback=True)

Arrays = dict[str, NDArray[Any]]


@dataclass
class Client:
    """One client between training and sealing."""

    folder: Path
    mask: Mask

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(3)
        self.said: list[str] = []
        self.replica = Replica(schema=SCHEMA)
        self.replica.weights = self.drawn()
        self.replica.mask = self.mask
        self.replica.version = Version(mask=self.mask.version)
        self.residual = ResidualFile(folder=self.folder, say=self.said.append)

    def drawn(self) -> Arrays:
        arrays: Arrays = {t.name: self.rng.normal(size=t.shape).astype(np.float32) for t in SCHEMA}
        self.mask.apply(arrays)
        return arrays

    def trained(self) -> Arrays:
        return {name: self.replica.weights[name] + array for name, array in self.drawn().items()}

    def memory(self, round_: int) -> Memory:
        return self.residual.load(SCHEMA, self.mask, run_id="r", epoch=0, round_=round_)


def assigned(plan: UploadPlan, *, round_: int = 1) -> Assignment:
    return Assignment(
        assignment_id=round_,
        run_id="r",
        round=round_,
        version=Version(),
        deadline_s=1.0,
        work=TrainWork(),
        plan=plan,
    )


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path, Mask.full(SCHEMA))


def test_without_a_plan_the_weights_travel_to_the_bit(client: Client) -> None:
    weights = client.trained()
    update = encode(assigned(UploadPlan()), client.replica, weights, client.residual)
    found = decode_update(update.frame, schema=SCHEMA, mask=client.mask, base=client.replica.weights)
    assert all(found[name].tobytes() == weights[name].tobytes() for name in weights)
    assert update.norm == 0.0
    assert list(client.folder.iterdir()) == []


def test_under_a_plan_differences_travel_and_the_rest_is_staged(client: Client) -> None:
    weights = client.trained()
    update = encode(assigned(TERNARY), client.replica, weights, client.residual)
    assert UpdateReader(update.frame, schema=SCHEMA, mask=client.mask).content is Content.DELTA
    sent = decode_delta(update.frame, SCHEMA, client.mask)
    assert client.memory(2).residual == {}
    client.residual.settle(1, accepted=True)
    left = client.memory(2)
    assert update.norm == pytest.approx(left.norm)
    for name in WEIGHTS:
        change = weights[name] - client.replica.weights[name]
        np.testing.assert_allclose(sent[name] + left.residual[name], change, atol=1e-6)
    assert np.array_equal(sent["mean"], weights["mean"])


def test_a_restart_between_seal_and_receipt_stages_the_same_again(client: Client) -> None:
    """Nothing that was staged counts before its receipt, so work that is done again starts from the same memory."""
    first = client.trained()
    encode(assigned(TERNARY), client.replica, first, client.residual)
    client.residual.settle(1, accepted=True)
    second = client.trained()
    frames = {encode(assigned(TERNARY, round_=2), client.replica, second, client.residual).frame for _ in range(3)}
    assert len(frames) == 1


def test_a_refused_update_is_sent_with_the_next(client: Client) -> None:
    weights = client.trained()
    encode(assigned(TERNARY), client.replica, weights, client.residual)
    client.residual.settle(1, accepted=False)
    for name in WEIGHTS:
        change = weights[name] - client.replica.weights[name]
        np.testing.assert_allclose(client.memory(2).residual[name], change, atol=1e-6)


@pytest.mark.parametrize("values", ["lossless", "raw"])
def test_an_exact_update_carries_what_earlier_ones_left_out(client: Client, values: str) -> None:
    encode(assigned(TERNARY), client.replica, client.trained(), client.residual)
    client.residual.settle(1, accepted=True)
    left = client.memory(2).residual
    weights = client.trained()
    update = encode(assigned(UploadPlan(values=values), round_=2), client.replica, weights, client.residual)
    found = decode_update(update.frame, schema=SCHEMA, mask=client.mask, base=client.replica.weights)
    for name in WEIGHTS:
        assert np.allclose(found[name], weights[name] + left[name], atol=1e-6)
    assert np.array_equal(found["mean"], weights["mean"])


@pytest.mark.parametrize("accepted", [True, False])
def test_after_an_exact_update_nothing_is_left_unless_it_was_refused(client: Client, accepted: bool) -> None:
    encode(assigned(TERNARY), client.replica, client.trained(), client.residual)
    client.residual.settle(1, accepted=True)
    left, weights = client.memory(2).residual, client.trained()
    encode(assigned(UploadPlan(), round_=2), client.replica, weights, client.residual)
    client.residual.settle(2, accepted=accepted)
    then = client.memory(3).residual
    if accepted:
        assert then == {}
    for name in then:
        assert np.allclose(then[name], left[name] + (weights[name] - client.replica.weights[name]), atol=1e-6)
    assert accepted or set(then) == set(WEIGHTS)


def test_a_smaller_mask_takes_its_part_of_the_memory_and_says_so(client: Client) -> None:
    encode(assigned(TERNARY), client.replica, client.trained(), client.residual)
    client.residual.settle(1, accepted=True)
    before = client.memory(2).residual["hidden"]
    alive = np.zeros((12, 10), np.bool_)
    alive[:6] = True
    thin = Client(client.folder, Mask(schema=SCHEMA, version=1, alive={"hidden": alive}))
    update = encode(assigned(TERNARY, round_=2), thin.replica, thin.trained(), thin.residual)
    assert not decode_delta(update.frame, SCHEMA, thin.mask)["hidden"][6:].any()
    norm = float(np.linalg.norm(before[6:]))
    assert thin.said == [f"round 2: the new mask takes a residual of norm {norm:.3g}"]


@pytest.mark.parametrize("values", ["fp16", "int8", "int4", "ternary"])
def test_training_that_changed_nothing_is_sent_as_nothing(client: Client, values: str) -> None:
    plan = UploadPlan(values=values, top=0.04, error_feedback=True, clip_norm=1.0, momentum=0.5)
    update = encode(assigned(plan), client.replica, client.replica.weights, client.residual)
    sent = decode_delta(update.frame, SCHEMA, client.mask)
    assert not any(sent[name].any() for name in WEIGHTS)
    assert update.norm == 0.0


@pytest.mark.parametrize("values", ["fp16", "int8", "int4", "ternary"])
def test_however_small_the_share_every_matrix_sends_one(client: Client, values: str) -> None:
    plan = UploadPlan(values=values, top=1e-9, error_feedback=True)
    update = encode(assigned(plan), client.replica, client.trained(), client.residual)
    sent = decode_delta(update.frame, SCHEMA, client.mask)
    assert {name: np.count_nonzero(sent[name]) for name in ("hidden", "last")} == {"hidden": 1, "last": 1}


def test_a_matrix_that_is_wholly_pruned_sends_nothing(tmp_path: Path) -> None:
    empty = Mask(schema=SCHEMA, version=1, alive={"hidden": np.zeros((12, 10), np.bool_)})
    client = Client(tmp_path, empty)
    update = encode(assigned(TERNARY), client.replica, client.trained(), client.residual)
    assert not decode_delta(update.frame, SCHEMA, empty)["hidden"].any()


def test_weights_that_are_not_finite_are_refused_and_nothing_is_staged(client: Client) -> None:
    weights = client.trained()
    weights["last"][1, 1] = np.inf
    with pytest.raises(UpdateError, match="'last' is not finite"):
        encode(assigned(TERNARY), client.replica, weights, client.residual)
    assert list(client.folder.iterdir()) == []


def test_a_plan_that_is_not_known_here_is_refused_before_any_work() -> None:
    check(assigned(TERNARY))
    with pytest.raises(LocalError, match=r"upload plan.*got octonary, expected .*ternary.*same fedprune on both sides"):
        check(assigned(UploadPlan(values="octonary")))
