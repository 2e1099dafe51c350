"""One model per version: whatever way a client got there, it holds the same bits as the coordinator.

The coordinator's `Versions` and clients' `Replica`s, with the wire left out: masks change, plans are lossy, clients
fall behind, join late, miss parts, and the model is rolled back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedprune.codec import Limits
from fedprune.errors import VersionError
from fedprune.mask import Mask
from fedprune.parts import Part, PartKind
from fedprune.tensor import Role, Schema, TensorSpec, Version
from fedprune.work import UploadPlan
from fedprune_client.replica import Replica
from fedprune_server.store import MemoryStore, RoundRecord, RunRecord
from fedprune_server.versions import Versions
from fedprune_server.ways import HISTORY

SCHEMA = Schema(
    tensors=(
        TensorSpec(name="hidden", shape=(24, 16)),
        TensorSpec(name="bias", shape=(24,), role=Role.FREE),
        TensorSpec(name="var", shape=(24,), role=Role.BUFFER),
        TensorSpec(name="seen", shape=(), dtype="int64", role=Role.COUNTER),
    )
)
PLANS = {
    "lossless": UploadPlan(),
    "int8": UploadPlan(values="int8", error_feedback=True),
    "ternary": UploadPlan(values="ternary", top=0.1, error_feedback=True),
}
Arrays = dict[str, NDArray[Any]]


class Coordinator:
    """Versions of a model that drifts at random."""

    def __init__(self, plan: UploadPlan) -> None:
        self.plan = plan
        self.rng = np.random.default_rng(1)
        self.store = MemoryStore()
        self.store.create_run(RunRecord(run_id="r", name="r", config_toml="", schema_digest=SCHEMA.digest))
        self.versions = Versions(self.store, "r", SCHEMA, Limits.of_update(SCHEMA))
        self.commit(self.drifted(None), Mask.full(SCHEMA), None)

    def drifted(self, from_: Arrays | None) -> Arrays:
        step: Arrays = {t.name: self.rng.normal(size=t.shape).astype(np.float32) for t in SCHEMA if t.name != "seen"}
        if from_ is not None:
            step = {name: from_[name] + np.float32(0.01) * array for name, array in step.items()}
        step["seen"] = np.array(0 if from_ is None else from_["seen"] + 1)
        return step

    def commit(self, arrays: Arrays, mask: Mask, plan: UploadPlan | None) -> None:
        mask.apply(arrays)
        round_ = self.versions.latest.version.model + 1 if self.versions.started else 0
        if round_:
            opened = RoundRecord(run_id="r", round=round_, version=self.versions.latest.version, deadline_s=1.0)
            self.store.open_round(opened, [])
        prepared = self.versions.prepare(arrays, mask, round_=round_, plan=plan)
        self.store.commit_version(prepared.record)
        self.versions.adopt(prepared)

    def go_on(self, *, prune: bool = False) -> None:
        before = self.versions.latest
        mask = thinner(before.mask, self.rng) if prune else before.mask
        self.commit(self.drifted(dict(before.arrays)), mask, self.plan)

    def roll_back(self) -> None:
        self.commit(self.drifted(None), Mask.full(SCHEMA, version=self.versions.latest.mask.version + 1), None)

    def serve(self, replica: Replica, *, parts: int | None = None) -> Sequence[Part]:
        """Bring a replica up to date, or break off after some parts; gives what was needed."""
        needed = self.versions.parts(replica.version, self.versions.latest.version)
        for part in needed[:parts]:
            replica.apply(part, self.store.blobs.open(part.digest))
        return needed


def thinner(mask: Mask, rng: np.random.Generator) -> Mask:
    alive = {name: bits & (rng.random(bits.shape) < 0.7) for name, bits in mask.alive.items()}
    return Mask(schema=SCHEMA, version=mask.version + 1, alive=alive)


def assert_same(replica: Replica, versions: Versions) -> None:
    assert replica.version == versions.latest.version
    assert replica.mask is not None
    assert replica.mask.fingerprint == versions.latest.mask.fingerprint
    for name, array in versions.latest.arrays.items():
        assert replica.weights[name].tobytes() == np.asarray(array).tobytes(), name


@pytest.fixture(params=list(PLANS.values()), ids=list(PLANS))
def coordinator(request: pytest.FixtureRequest) -> Coordinator:
    return Coordinator(request.param)


def test_every_way_leads_to_the_same_bits(coordinator: Coordinator) -> None:
    steady, lazy = Replica(schema=SCHEMA), Replica(schema=SCHEMA)
    coordinator.serve(steady)
    coordinator.serve(lazy)
    for number in range(1, 13):
        coordinator.go_on(prune=number % 4 == 0)
        steps = coordinator.serve(steady)
        assert all(part.kind is not PartKind.MODEL for part in steps)
        assert_same(steady, coordinator.versions)
        if number % 5 == 0:
            coordinator.serve(lazy)
            assert_same(lazy, coordinator.versions)
        late = Replica(schema=SCHEMA)
        assert [part.kind for part in coordinator.serve(late)] == [PartKind.MASK, PartKind.MODEL]
        assert_same(late, coordinator.versions)


def test_who_is_a_few_steps_behind_gets_the_steps_where_they_are_smaller() -> None:
    coordinator = Coordinator(PLANS["ternary"])
    replica = Replica(schema=SCHEMA)
    coordinator.serve(replica)
    for _ in range(3):
        coordinator.go_on()
    assert [part.kind for part in coordinator.serve(replica)] == [PartKind.DELTA] * 3
    assert_same(replica, coordinator.versions)


def test_who_is_further_behind_than_the_history_gets_the_model(coordinator: Coordinator) -> None:
    replica = Replica(schema=SCHEMA)
    coordinator.serve(replica)
    for _ in range(HISTORY + 1):
        coordinator.go_on()
    assert [part.kind for part in coordinator.serve(replica)] == [PartKind.MODEL]
    assert_same(replica, coordinator.versions)


def test_a_rollback_ends_the_chain_and_regrown_values_arrive(coordinator: Coordinator) -> None:
    replica = Replica(schema=SCHEMA)
    coordinator.serve(replica)
    coordinator.go_on(prune=True)
    coordinator.serve(replica)
    coordinator.roll_back()
    assert coordinator.versions.latest.kept.memory.residual == {}
    assert [part.kind for part in coordinator.serve(replica)] == [PartKind.MASK, PartKind.MODEL]
    assert_same(replica, coordinator.versions)
    coordinator.go_on()
    coordinator.serve(replica)
    assert_same(replica, coordinator.versions)


@pytest.mark.parametrize("broken_after", [1, 2, 3])
def test_a_transfer_that_broke_between_parts_ends_well(coordinator: Coordinator, broken_after: int) -> None:
    replica = Replica(schema=SCHEMA)
    coordinator.serve(replica)
    for _ in range(2):
        coordinator.go_on(prune=True)
    coordinator.serve(replica, parts=broken_after)
    coordinator.go_on()
    coordinator.serve(replica)
    assert_same(replica, coordinator.versions)


def test_a_mask_without_its_weights_is_no_version(coordinator: Coordinator) -> None:
    coordinator.go_on(prune=True)
    replica = Replica(schema=SCHEMA)
    coordinator.serve(replica, parts=1)
    assert replica.version is None


def test_a_restarted_coordinator_holds_the_same_version_and_residual(coordinator: Coordinator) -> None:
    replica = Replica(schema=SCHEMA)
    coordinator.serve(replica)
    for number in range(3):
        coordinator.go_on(prune=number == 1)
    coordinator.serve(replica)
    before = coordinator.versions.latest
    again = Versions(coordinator.store, "r", SCHEMA, Limits.of_update(SCHEMA))
    again.restore(before.record)
    assert_same(replica, again)
    assert again.parts(replica.version, before.version) == ()
    for name, residual in before.kept.memory.residual.items():
        assert again.latest.kept.memory.residual[name].tobytes() == residual.tobytes()


def test_what_broadcasts_leave_out_is_kept_for_the_next() -> None:
    coordinator = Coordinator(PLANS["ternary"])
    wanted = {name: np.array(a, np.float64) for name, a in coordinator.versions.latest.arrays.items()}
    for _ in range(6):
        before = coordinator.versions.latest
        target = coordinator.drifted(dict(before.arrays))
        for name in ("hidden", "bias"):
            wanted[name] += target[name].astype(np.float64) - before.arrays[name]
        coordinator.commit(target, before.mask, coordinator.plan)
    latest = coordinator.versions.latest
    for name in ("hidden", "bias"):
        np.testing.assert_allclose(latest.arrays[name] + latest.kept.memory.residual[name], wanted[name], atol=1e-5)


def test_only_the_latest_version_is_to_be_had(coordinator: Coordinator) -> None:
    with pytest.raises(VersionError, match="b99"):
        coordinator.versions.parts(None, Version(model=99))


def test_a_step_for_another_version_is_refused_and_changes_nothing(coordinator: Coordinator) -> None:
    replica = Replica(schema=SCHEMA)
    coordinator.go_on()
    coordinator.serve(replica)
    before = {name: array.copy() for name, array in replica.weights.items()}
    coordinator.go_on()
    coordinator.go_on()
    step = coordinator.versions.latest.steps[-1]
    with pytest.raises(VersionError):
        replica.apply(step, coordinator.store.blobs.open(step.digest))
    assert all(np.array_equal(replica.weights[name], array) for name, array in before.items())
