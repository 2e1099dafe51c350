"""The pruner over a whole run: masks nest, end at the density, and come again after a restart."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fedprune.errors import LocalError
from fedprune.mask import Mask
from fedprune.pruning import PruningPlan, keep_count
from fedprune.tensor import Role, Schema, TensorSpec
from fedprune_server.pruner import Proposal, Pruner

DEMO = Schema(
    tensors=(
        TensorSpec(name="0.weight", shape=(128, 64)),
        TensorSpec(name="0.bias", shape=(128,), role=Role.FREE),
        TensorSpec(name="2.weight", shape=(96, 128)),
        TensorSpec(name="4.weight", shape=(10, 96), role=Role.FREE),
    )
)


def weights_of(round: int) -> dict[str, NDArray[np.generic]]:
    rng = np.random.default_rng(round)
    return {t.name: rng.standard_normal(t.shape).astype(np.float32) for t in DEMO}


def run(plan: PruningPlan, rounds: int) -> list[Proposal]:
    pruner, mask, found = Pruner(plan, rounds), Mask.full(DEMO), []
    for round in range(1, rounds + 1):
        proposal = pruner.propose(round=round, weights=weights_of(round), mask=mask, next_mask_version=mask.version + 1)
        if proposal is not None:
            assert proposal.mask.within(mask)
            mask = proposal.mask
            found.append(proposal)
    return found


def test_a_whole_run_ends_at_the_density_to_the_weight() -> None:
    found = run(PruningPlan(density=0.1), 40)
    assert [p.round for p in found] == [9, 14, 19, 24]
    assert [p.mask.version for p in found] == [1, 2, 3, 4]
    assert found[-1].mask.alive_count == keep_count(0.1, found[-1].mask.size)
    for p in found:
        assert p.realised_density == pytest.approx(p.target_density, abs=1 / p.mask.size)
        assert sum(layer.after for layer in p.explanation) == p.mask.alive_count
        assert [layer.name for layer in p.explanation] == ["0.weight", "2.weight"]
        assert {layer.score for layer in p.explanation} == {"magnitude"}


def test_the_same_question_has_the_same_answer() -> None:
    first, second = (run(PruningPlan(density=0.2), 40) for _ in range(2))
    assert [p.mask.fingerprint for p in first] == [p.mask.fingerprint for p in second]
    assert [p.explanation for p in first] == [p.explanation for p in second]


def test_floors_that_hold_everything_still_give_a_proposal() -> None:
    plan = PruningPlan(density=0.01)
    (*_, last) = run(plan, 40)
    assert last.realised_density > last.target_density == 0.01
    assert last.floor_trimmed > 0
    with pytest.raises(LocalError, match="floors hold more"):
        Pruner(plan, 40).check(DEMO)


def test_dense_runs_are_never_pruned() -> None:
    assert run(PruningPlan(), 12) == []
    Pruner(PruningPlan(), 12).check(DEMO)


def test_a_mask_already_below_the_step_is_left_alone() -> None:
    sparse = run(PruningPlan(density=0.1), 40)[-1].mask
    pruner = Pruner(PruningPlan(density=0.1), 40)
    assert pruner.propose(round=9, weights=weights_of(9), mask=sparse, next_mask_version=9) is None


def test_a_plan_the_rounds_cannot_hold_is_refused_when_built() -> None:
    with pytest.raises(LocalError, match="too few rounds"):
        Pruner(PruningPlan(density=0.1), 12)
