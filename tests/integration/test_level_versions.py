"""Versions with several masks: whatever level a client is at or goes to, it holds the version's values on its mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedprune.codec import Limits
from fedprune.mask import Mask
from fedprune.parts import PartKind
from fedprune.pruning import Floors
from fedprune.pruning.nested import nested_masks
from fedprune.tensor import Role, Schema, TensorSpec
from fedprune.work import UploadPlan
from fedprune_client.replica import Replica
from fedprune_server.store import MemoryStore, RoundRecord, RunRecord, RunState
from fedprune_server.versions import Versions

SCHEMA = Schema(
    tensors=(
        TensorSpec(name="w", shape=(12, 10)),
        TensorSpec(name="v", shape=(8, 12)),
        TensorSpec(name="b", shape=(12,), role=Role.FREE),
        TensorSpec(name="steps", shape=(), dtype="int64", role=Role.COUNTER),
    )
)
LEVELS = (0.1, 0.3, 0.6, 1.0)


class History:
    """A run whose model is drawn at random, cut into levels."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.store = MemoryStore()
        run = RunRecord(run_id="r", name="r", config_toml="", schema_digest=SCHEMA.digest, state=RunState.RUNNING)
        self.store.create_run(run)
        self.versions = self.reopened()
        self.round = 0
        self.commit(cut=True, prune=False)

    def reopened(self) -> Versions:
        return Versions(self.store, "r", SCHEMA, Limits.of_update(SCHEMA))

    def commit(self, *, cut: bool, prune: bool) -> None:
        latest = self.versions.latest if self.versions.started else None
        mask = latest.mask if latest else Mask.full(SCHEMA)
        if prune and latest:
            alive = {name: bits & (self.rng.random(bits.shape) < 0.8) for name, bits in mask.alive.items()}
            mask = Mask(schema=SCHEMA, version=latest.newest_mask + 1, alive=alive)
        arrays: dict[str, NDArray[Any]] = {
            t.name: self.rng.normal(size=t.shape).astype(np.float32) for t in SCHEMA if t.name != "steps"
        }
        arrays["steps"] = np.array(self.round)
        mask.apply(arrays)
        levels = latest.levels if latest else {}
        if cut or prune:
            first = 1 + max(mask.version, latest.newest_mask if latest else 0)
            ranked = {name: self.rng.random(bits.shape, np.float32) for name, bits in mask.alive.items()}
            levels = nested_masks(ranked, mask, LEVELS, Floors(weights=1, share=0.0), first)
        prepared = self.versions.prepare(
            arrays, mask, round_=self.round, plan=UploadPlan() if latest else None, levels=levels
        )
        if latest:
            self.store.open_round(RoundRecord(run_id="r", round=self.round, version=latest.version, deadline_s=1.0), [])
        self.store.commit_version(prepared.record)
        self.versions.adopt(prepared)
        self.round += 1

    def follow(self, replica: Replica, density: float) -> list[PartKind]:
        kinds = []
        want = self.versions.latest.at_level(density)
        for part in self.versions.parts(replica.version, want):
            replica.apply(part, self.store.blobs.open(part.digest))
            kinds.append(part.kind)
        assert replica.version == want
        return kinds

    def assert_held(self, replica: Replica, density: float) -> None:
        latest = self.versions.latest
        mask = latest.levels.get(density, latest.mask)
        assert replica.mask is not None
        assert replica.mask.fingerprint == mask.fingerprint
        wanted = {name: np.array(array) for name, array in latest.arrays.items()}
        mask.apply(wanted)
        assert {n: a.tobytes() for n, a in replica.weights.items()} == {n: a.tobytes() for n, a in wanted.items()}


moves = st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from(LEVELS), st.booleans()), max_size=10)


@settings(max_examples=60, deadline=None)
@given(moves, st.integers(0, 1 << 32))
def test_every_way_to_a_level_ends_in_the_versions_values(
    moves: list[tuple[bool, bool, float, bool]], seed: int
) -> None:
    history = History(seed)
    steady = {density: Replica(schema=SCHEMA) for density in LEVELS}
    wanderer = Replica(schema=SCHEMA)
    for cut, prune, density, comes in moves:
        history.commit(cut=cut, prune=prune)
        for level, replica in steady.items():
            history.follow(replica, level)
            history.assert_held(replica, level)
        if comes:
            history.follow(wanderer, density)
            history.assert_held(wanderer, density)


def test_who_stays_follows_by_steps_and_who_goes_down_needs_the_mask_alone() -> None:
    history, low, high = History(1), Replica(schema=SCHEMA), Replica(schema=SCHEMA)
    assert history.follow(low, 0.1) == history.follow(high, 0.6) == [PartKind.MASK, PartKind.MODEL]
    history.commit(cut=False, prune=False)
    assert history.follow(low, 0.1) == history.follow(high, 0.6) == [PartKind.DELTA]
    history.commit(cut=True, prune=False)
    assert history.follow(low, 0.1) == [PartKind.MASK, PartKind.DELTA]
    history.commit(cut=True, prune=False)
    # Two steps, the first of them with a new mask; then less of the same version, which is all there.
    assert history.follow(high, 0.6) == [PartKind.MASK, PartKind.DELTA] * 2
    assert history.follow(high, 0.3) == [PartKind.MASK]
    history.assert_held(high, 0.3)
    # More of it is not: the values have to come.
    assert history.follow(high, 0.6) == [PartKind.MASK, PartKind.MODEL]


def test_a_step_weighs_as_much_as_its_level() -> None:
    history = History(2)
    history.commit(cut=False, prune=False)
    sizes = [sum(part.size for part in way) for way in history.versions.last_steps()]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == len(LEVELS)
    assert sizes[-1] < sizes[0] / 2


def test_a_coordinator_that_comes_back_has_the_same_levels() -> None:
    history = History(3)
    history.commit(cut=True, prune=True)
    before, latest = history.versions.latest, history.store.latest_version("r")
    assert latest is not None
    history.versions = history.reopened()
    history.versions.restore(latest)
    after = history.versions.latest
    assert {d: (m.version, m.fingerprint) for d, m in after.levels.items()} == {
        d: (m.version, m.fingerprint) for d, m in before.levels.items()
    }
    assert list(after.levels) == [0.6, 0.3, 0.1]
    newcomer = Replica(schema=SCHEMA)
    history.follow(newcomer, 0.3)
    history.assert_held(newcomer, 0.3)


def test_what_is_made_on_demand_is_not_taken_for_garbage() -> None:
    history = History(4)
    history.commit(cut=False, prune=False)
    keep = history.versions.kept
    made = history.versions.parts(None, history.versions.latest.at_level(0.3))
    history.store.collect_garbage(keep)
    assert [len(history.store.blobs.open(part.digest)) for part in made] == [part.size for part in made]
