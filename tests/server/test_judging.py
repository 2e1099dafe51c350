"""What clients' updates say about each weight, against the obvious; and that beliefs outlive their coordinator."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from fedprune.codec import Content, Limits, UpdateReader, encode_update
from fedprune.feedback import Memory
from fedprune.mask import Mask
from fedprune.pruning import PruningPlan
from fedprune.pruning.comparison import Measured
from fedprune.tensor import Role, Schema, TensorSpec, Version
from fedprune_server.aggregation import FoldInput
from fedprune_server.judging import judged
from fedprune_server.pruner import Pruner
from fedprune_server.state import Kept, pack_state, unpack_state
from fedprune_server.store import MemoryStore, RunRecord
from fedprune_server.trials import ControlPlan, ControlState, Phase, Trial
from fedprune_server.versions import Versions

SCHEMA = Schema(
    tensors=(
        TensorSpec(name="first", shape=(6, 4)),
        TensorSpec(name="bias", shape=(6,), role=Role.FREE),
        TensorSpec(name="second", shape=(5, 6)),
    )
)
RNG = np.random.default_rng(5)
MASK = Mask(schema=SCHEMA, version=1, alive={t.name: RNG.random(t.shape) < 0.6 for t in SCHEMA.prunable})


def some_weights() -> dict[str, np.ndarray]:
    arrays = {t.name: RNG.normal(size=t.shape).astype(np.float32) for t in SCHEMA}
    MASK.apply(arrays)
    return arrays


@pytest.mark.parametrize("content", [Content.WEIGHTS, Content.DELTA])
def test_local_magnitudes_come_out_of_either_kind_of_update(content: Content) -> None:
    base, local = some_weights(), some_weights()
    sent = local if content is Content.WEIGHTS else {n: local[n] - base[n] for n in local}
    frame = encode_update(sent, schema=SCHEMA, mask=MASK, content=content, version=Version(mask=1))
    reader = UpdateReader(frame, schema=SCHEMA, mask=MASK, base=base)
    (client,) = judged([FoldInput(examples=9, content=reader.content, open=partial(iter, reader))], base, MASK)
    assert client.examples == 9
    assert list(client.magnitude) == ["first", "second"]
    for name in ("first", "second", "second", "first"):
        assert np.allclose(client.magnitude[name], np.abs(local[name]), atol=1e-6)


def believer() -> Pruner:
    plan = PruningPlan(
        density=0.7, method="random", schedule="regrow", regrow="posterior", every=2, start=0.0, recovery_rounds=0
    )
    pruner = Pruner(plan, 20, seed=1)
    pruner.check(SCHEMA)
    return pruner


def test_beliefs_are_stored_with_the_version_and_taken_up_again() -> None:
    store, pruner = MemoryStore(), believer()
    store.create_run(RunRecord(run_id="r", name="r", config_toml="", schema_digest=SCHEMA.digest))
    assert pruner.beliefs is not None
    pruner.observe(round=1, weights=some_weights(), mask=MASK)
    versions = Versions(store, "r", SCHEMA, Limits.of_update(SCHEMA))
    first = versions.prepare(some_weights(), MASK, round_=0, plan=None, beliefs=pruner.beliefs.arrays())
    store.commit_version(first.record)
    learnt = {name: array.copy() for name, array in pruner.beliefs.arrays().items()}
    pruner.observe(round=2, weights=some_weights(), mask=MASK)

    again, fresh = Versions(store, "r", SCHEMA, Limits.of_update(SCHEMA)), believer()
    again.restore(first.record)
    assert fresh.beliefs is not None
    fresh.beliefs.restore(again.latest.kept.beliefs)
    found = fresh.beliefs.arrays()
    assert all(np.array_equal(found[name], array) for name, array in learnt.items())
    assert any(np.any(array > 1) for array in found.values())


def test_each_kind_of_memory_comes_back_as_itself() -> None:
    one, two, three = (np.full(3, v, np.float32) for v in (1, 2, 3))
    trial = Trial(density=0.5, round=7, snapshot=Version(model=6, mask=2), left=2)
    plan = ControlPlan(path=(0.5, 0.2), first=2, last=9)
    control = ControlState(
        plan=plan, phase=Phase.RECOVERING, best={"client 0": Measured(value=0.75, examples=8)}, trial=trial, rollbacks=3
    )
    kept = Kept(memory=Memory(residual={"w": one}), optimizer={"m.w": two}, beliefs={"alpha.w": three}, control=control)
    found = unpack_state(memoryview(pack_state(kept)))
    assert (found.memory.residual["w"] == one).all()
    assert (found.optimizer["m.w"] == two).all()
    assert (found.beliefs["alpha.w"] == three).all()
    assert found.control == control
    assert pack_state(Kept()) == b""
    assert unpack_state(memoryview(pack_state(Kept(optimizer={"m.w": two})))).control is None
