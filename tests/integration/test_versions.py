"""The coordinator's versions and a client's replica, without a network: every way to a version ends in the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedprune.codec import Limits, encode_update
from fedprune.errors import FedpruneError, VersionError
from fedprune.mask import Mask
from fedprune.parts import Part, PartKind
from fedprune.tensor import Role, Schema, TensorSpec, Version
from fedprune.work import UploadPlan
from fedprune_client.replica import Replica
from fedprune_server import versions, ways
from fedprune_server.prepared import Arrays
from fedprune_server.store import MemoryStore, RoundRecord, RunRecord, RunState
from fedprune_server.versions import Versions
from fedprune_server.ways import HISTORY

SCHEMA = Schema(
    tensors=(
        TensorSpec(name="w", shape=(12, 9)),
        TensorSpec(name="b", shape=(12,), role=Role.FREE),
        TensorSpec(name="mean", shape=(12,), role=Role.BUFFER),
        TensorSpec(name="steps", shape=(), dtype="int64", role=Role.COUNTER),
    )
)
LOSSLESS, INT8 = UploadPlan(), UploadPlan(values="int8")


class History:
    """A run whose versions are drawn at random."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.store = MemoryStore()
        run = RunRecord(run_id="r", name="r", config_toml="", schema_digest=SCHEMA.digest, state=RunState.RUNNING)
        self.store.create_run(run)
        self.versions = Versions(self.store, "r", SCHEMA, Limits.of_update(SCHEMA))
        self.mask = Mask.full(SCHEMA)
        self.round = 0
        self.commit(None)

    def arrays(self) -> Arrays:
        found: dict[str, NDArray[Any]] = {
            "w": self.rng.normal(size=(12, 9)).astype(np.float32),
            "b": self.rng.normal(size=12).astype(np.float32),
            "mean": self.rng.normal(size=12).astype(np.float32),
            "steps": np.array(self.rng.integers(1 << 40), np.int64),
        }
        self.mask.apply(found)
        return found

    def commit(self, plan: UploadPlan | None) -> None:
        """The next version, made public."""
        prepared = self.versions.prepare(self.arrays(), self.mask, round_=self.round, plan=plan)
        if self.round:
            record = RoundRecord(run_id="r", round=self.round, version=self.versions.latest.version, deadline_s=1.0)
            self.store.open_round(record, [])
        self.store.commit_version(prepared.record)
        self.versions.adopt(prepared)
        self.round += 1

    def remask(self, share: float) -> None:
        """Another mask, with weights gone and weights back."""
        alive = {"w": self.rng.random((12, 9)) < share}
        self.mask = Mask(schema=SCHEMA, version=self.mask.version + 1, alive=alive)

    def parts(self, replica: Replica) -> Iterator[tuple[Part, memoryview]]:
        for part in self.versions.parts(replica.version, self.versions.latest.version):
            yield part, self.store.blobs.open(part.digest)


@pytest.mark.parametrize("values", ["lossless", "raw"])
def test_an_exact_step_carries_what_steps_before_it_left_out(values: str) -> None:
    history = History(1)
    history.commit(UploadPlan(values="ternary", top=0.1, error_feedback=True))
    left = history.versions.latest.kept.memory
    assert left.norm > 0
    wanted = history.arrays()
    prepared = history.versions.prepare(wanted, history.mask, round_=2, plan=UploadPlan(values=values))
    for name in ("w", "b"):
        np.testing.assert_allclose(prepared.arrays[name], wanted[name] + left.residual[name], atol=1e-6)
    assert np.array_equal(prepared.arrays["mean"], wanted["mean"])
    assert (prepared.kept.memory.norm, prepared.dropped_norm) == (0.0, 0.0)


@pytest.mark.parametrize("plan", [LOSSLESS, INT8])
def test_a_new_mask_takes_its_part_of_what_steps_left_out_and_says_how_much(
    plan: UploadPlan, caplog: pytest.LogCaptureFixture
) -> None:
    history = History(1)
    history.commit(UploadPlan(values="ternary", top=0.1, error_feedback=True))
    left = history.versions.latest.kept.memory.residual["w"]
    history.remask(0.5)
    taken = float(np.linalg.norm(left[~history.mask.alive["w"]]))
    with caplog.at_level("INFO", "fedprune.run"):
        history.commit(plan)
    assert history.versions.latest.dropped_norm == pytest.approx(taken)
    assert f"norm {taken:.3g}" in caplog.text


def follow(history: History, replica: Replica) -> list[PartKind]:
    """Bring a replica to the latest version; which parts it took."""
    kinds = []
    for part, data in history.parts(replica):
        replica.apply(part, data)
        kinds.append(part.kind)
    return kinds


def assert_same(history: History, replica: Replica) -> None:
    latest = history.versions.latest
    assert replica.version == latest.version
    assert replica.mask is not None
    assert replica.mask.fingerprint == latest.mask.fingerprint
    assert {n: a.tobytes() for n, a in replica.weights.items()} == {n: a.tobytes() for n, a in latest.arrays.items()}
    assert all(replica.weights[spec.name].shape == spec.shape for spec in SCHEMA)


steps = st.lists(st.tuples(st.sampled_from([LOSSLESS, INT8, None]), st.sampled_from([0.0, 0.0, 0.6, 0.2])), max_size=12)


@settings(max_examples=40, deadline=None)
@given(steps, st.integers(0, 1 << 32), st.data())
def test_every_way_to_a_version_ends_in_the_same_bits(
    made: list[tuple[UploadPlan | None, float]], seed: int, draw: st.DataObject
) -> None:
    """One client follows at every step, one looks in now and then, one comes at the end, one breaks off in between."""
    history = History(seed)
    always, sometimes, broken = (Replica(schema=SCHEMA) for _ in range(3))
    for plan, share in made:
        follow(history, always)
        if draw.draw(st.booleans()):
            follow(history, sometimes)
        for part, data in list(history.parts(broken))[: draw.draw(st.integers(0, 2))]:
            broken.apply(part, data)
        if share:
            history.remask(share)
        history.commit(plan)
    for replica in (always, sometimes, broken, Replica(schema=SCHEMA)):
        follow(history, replica)
        assert_same(history, replica)
        assert follow(history, replica) == []


def test_who_follows_gets_steps_and_who_is_new_a_snapshot() -> None:
    history, replica = History(1), Replica(schema=SCHEMA)
    assert follow(history, replica) == [PartKind.MASK, PartKind.MODEL]
    history.remask(0.2)
    history.commit(INT8)
    assert follow(history, replica) == [PartKind.MASK, PartKind.DELTA]
    history.commit(INT8)
    assert follow(history, replica) == [PartKind.DELTA]


def test_a_snapshot_without_a_new_mask_is_the_model_alone() -> None:
    history, replica = History(1), Replica(schema=SCHEMA)
    follow(history, replica)
    history.commit(None)
    assert follow(history, replica) == [PartKind.MODEL]


def test_steps_are_forgotten_after_a_while() -> None:
    history, replica = History(1), Replica(schema=SCHEMA)
    follow(history, replica)
    for _ in range(HISTORY + 1):
        history.commit(INT8)
    assert PartKind.DELTA not in follow(history, replica)
    assert_same(history, replica)
    history.commit(INT8)
    assert len(history.versions.kept) <= HISTORY


@pytest.mark.parametrize("small", [True, False])
def test_a_snapshot_of_a_small_model_is_coded_when_somebody_wants_it(
    monkeypatch: pytest.MonkeyPatch, small: bool
) -> None:
    monkeypatch.setattr(ways, "SMALL_BYTES", SCHEMA.dense_bytes if small else 0)
    history, replica = History(1), Replica(schema=SCHEMA)
    history.commit(LOSSLESS)
    stored = history.versions.latest.record.model_digest
    _, model = history.versions.parts(None, history.versions.latest.version)
    assert (model.digest == stored) is not small
    assert follow(history, replica)
    assert_same(history, replica)
    again = history.versions.parts(None, history.versions.latest.version)
    assert again == history.versions.parts(None, history.versions.latest.version)
    assert model.digest in history.versions.kept or not small


def test_only_the_latest_version_is_to_be_had() -> None:
    history = History(1)
    with pytest.raises(VersionError, match=r"not to be had any more \(got s0b7v0, expected s0b0v0\)\. Ask again"):
        history.versions.parts(None, Version(model=7))


def test_a_coordinator_that_comes_back_gives_the_same_bits() -> None:
    history, replica = History(1), Replica(schema=SCHEMA)
    follow(history, replica)
    history.remask(0.5)
    history.commit(INT8)
    restored = Versions(history.store, "r", SCHEMA, Limits.of_update(SCHEMA))
    record = history.store.latest_version("r")
    assert record is not None
    restored.restore(record)
    before, history.versions = history.versions.latest, restored
    assert {n: a.tobytes() for n, a in restored.latest.arrays.items()} == {
        n: a.tobytes() for n, a in before.arrays.items()
    }
    assert restored.latest.kept.memory.norm == before.kept.memory.norm
    follow(history, replica)
    assert_same(history, replica)


class TestRefusals:
    def ready(self) -> tuple[History, Replica]:
        history, replica = History(1), Replica(schema=SCHEMA)
        follow(history, replica)
        history.remask(0.4)
        history.commit(INT8)
        return history, replica

    def test_a_step_that_does_not_follow(self) -> None:
        history, replica = self.ready()
        _, (delta, data) = history.parts(replica)
        with pytest.raises(
            VersionError, match=r"does not follow what we hold \(got made against s0b0v1, expected s0b0v0"
        ):
            replica.apply(delta, data)

    def test_weights_for_a_mask_that_is_not_held(self) -> None:
        history = History(1)
        _, (model, data) = history.parts(Replica(schema=SCHEMA))
        with pytest.raises(VersionError, match="a mask first"):
            Replica(schema=SCHEMA).apply(model, data)

    def test_damaged_parts_change_nothing(self) -> None:
        """Whatever byte is wrong, the replica still is the version that it says it is."""
        history, replica = self.ready()
        before = {name: array.copy() for name, array in replica.weights.items()}
        (mask, _), (delta, data) = history.parts(replica)
        for at in range(0, len(data), 3):
            damaged = bytearray(data)
            damaged[at] ^= 0x10
            probe = Replica(
                schema=SCHEMA,
                version=delta.base,
                weights={name: array.copy() for name, array in before.items()},
                mask=history.versions.latest.mask,
            )
            assert mask.version == delta.base
            try:
                probe.apply(delta, memoryview(bytes(damaged)))
            except FedpruneError:
                assert probe.version == delta.base
                assert all(np.array_equal(probe.weights[name], array) for name, array in before.items())

    def test_a_part_has_a_limit(self) -> None:
        history, replica = self.ready()
        for part, data in history.parts(replica):
            assert len(data) <= replica.max_bytes(part) < 10_000


def test_a_raw_step_is_the_snapshot_too(monkeypatch: pytest.MonkeyPatch) -> None:
    history, replica, encoded = History(1), Replica(schema=SCHEMA), list[bytes]()

    def encode(*args: Any, **kwargs: Any) -> bytes:
        encoded.append(encode_update(*args, **kwargs))
        return encoded[-1]

    monkeypatch.setattr(versions, "encode_update", encode)
    for density in (1.0, 0.5):
        encoded.clear()
        history.remask(density)
        history.commit(UploadPlan(values="raw"))
        assert len(encoded) == 1
        latest = history.versions.latest
        whole = encode_update(latest.arrays, schema=SCHEMA, plan="raw", mask=latest.mask, version=latest.version)
        assert bytes(history.store.blobs.open(latest.record.model_digest)) == whole
        follow(history, replica)
        assert_same(history, replica)


@pytest.mark.parametrize("values", ["lossless", "raw"])
def test_step_and_snapshot_of_a_large_model_are_encoded_side_by_side_to_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch, values: str
) -> None:
    records = []
    monkeypatch.setattr(ways, "SMALL_BYTES", 0)
    for large in (1 << 20, 1):
        monkeypatch.setattr(versions, "LARGE", large)
        history = History(3)
        history.commit(UploadPlan(values=values))
        records.append(history.versions.latest.record)
    assert records[0] == records[1]
