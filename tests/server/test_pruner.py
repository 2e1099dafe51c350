"""The pruner over whole runs: masks nest, end at the density, come again after a restart; every method and schedule."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from fedprune.errors import LocalError
from fedprune.mask import Mask
from fedprune.pruning import Floors, PruningPlan, keep_count
from fedprune.pruning.plan import METHODS
from fedprune.pruning.regrowth import GrowthVote
from fedprune.pruning.scores import FROM_CLIENTS
from fedprune.pruning.votes import Ballot, propose
from fedprune.tensor import Role, Schema, TensorSpec
from fedprune_server.proposal import Need, Proposal
from fedprune_server.pruner import Pruner

DEMO = Schema(
    tensors=(
        TensorSpec(name="0.weight", shape=(128, 64)),
        TensorSpec(name="0.bias", shape=(128,), role=Role.FREE),
        TensorSpec(name="2.weight", shape=(96, 128)),
        TensorSpec(name="4.weight", shape=(10, 96), role=Role.FREE),
    )
)
SIZE = 128 * 64 + 96 * 128


def weights_of(round: int) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(round)
    return {t.name: rng.standard_normal(t.shape).astype(np.float32) for t in DEMO}


def scores_of(round: int) -> dict[str, NDArray[np.float32]]:
    return {name: np.abs(array) for name, array in weights_of(round + 100).items() if name in ("0.weight", "2.weight")}


def vote_for(need: Need, mask: Mask, client: int) -> GrowthVote:
    rng = np.random.default_rng(client)
    places = {n: np.sort(rng.permutation(np.flatnonzero(~mask.alive[n]))[:k]) for n, k in need.grow.items()}
    gradients = {n: rng.random(p.size, np.float32) for n, p in places.items()} if need.values else None
    vote = GrowthVote(client=client, examples=10 + client, indices=places, gradients=gradients)
    vote.check(mask, need.grow)
    return vote


def run(
    plan: PruningPlan, rounds: int = 40, *, cost: Mapping[str, float] | None = None, check: bool = True
) -> list[Proposal]:
    """A run as the coordinator drives it, with weights and clients' answers made up; the proposals, in order."""
    pruner, mask, found = Pruner(plan, rounds, seed=1, cost=cost), Mask.full(DEMO), list[Proposal]()
    if check:
        pruner.check(DEMO)
    for round in range(rounds + 1):
        weights = weights_of(round)
        mask.apply(weights)
        need = pruner.needs(round=round, mask=mask)
        pruner.observe(round=round, weights=weights, mask=mask)
        proposal = pruner.propose(
            round=round,
            weights=weights,
            mask=mask,
            next_mask_version=mask.version + 1,
            scores=scores_of(round) if need and not need.grow else None,
            growth=[vote_for(need, mask, client) for client in range(3)] if need and need.grow else (),
        )
        if proposal is not None:
            assert sum(layer.after for layer in proposal.explanation) == proposal.mask.alive_count
            assert proposal.realised_density == proposal.mask.density
            mask = proposal.mask
            found.append(proposal)
    return found


def test_a_whole_run_ends_at_the_density_to_the_weight() -> None:
    found = run(PruningPlan(density=0.1))
    assert [p.round for p in found] == [9, 14, 19, 24]
    assert [p.mask.version for p in found] == [1, 2, 3, 4]
    assert found[-1].mask.alive_count == keep_count(0.1, SIZE)
    for before, after in pairwise(found):
        assert after.mask.within(before.mask)
    for p in found:
        assert p.realised_density == pytest.approx(p.target_density, abs=1 / SIZE)
        assert [layer.name for layer in p.explanation] == ["0.weight", "2.weight"]
        assert {layer.score for layer in p.explanation} == {"magnitude"}


@pytest.mark.parametrize("plan", [PruningPlan(density=0.2), PruningPlan(density=0.2, method="random")])
def test_the_same_question_has_the_same_answer(plan: PruningPlan) -> None:
    first, second = run(plan), run(plan)
    assert [p.mask.fingerprint for p in first] == [p.mask.fingerprint for p in second]
    assert [p.explanation for p in first] == [p.explanation for p in second]


def test_floors_that_hold_everything_still_give_a_proposal() -> None:
    # One published method skips a layer that its floors would touch, and says nothing.
    plan = PruningPlan(density=0.01)
    (*_, last) = run(plan, check=False)
    assert last.realised_density > last.target_density == 0.01
    assert last.floor_trimmed > 0
    with pytest.raises(LocalError, match="floors hold more"):
        Pruner(plan, 40).check(DEMO)


def test_dense_runs_are_never_pruned() -> None:
    assert run(PruningPlan(), 12) == []


def test_a_mask_already_below_the_step_is_left_alone() -> None:
    sparse = run(PruningPlan(density=0.1))[-1].mask
    pruner = Pruner(PruningPlan(density=0.1), 40)
    assert pruner.propose(round=9, weights=weights_of(9), mask=sparse, next_mask_version=9) is None


def test_a_plan_the_rounds_cannot_hold_is_refused_when_built() -> None:
    with pytest.raises(LocalError, match="too few rounds"):
        Pruner(PruningPlan(density=0.1), 12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schedule", ["init", "once"])
def test_every_method_reaches_the_density_at_once(method: str, schedule: str) -> None:
    (only,) = run(PruningPlan(density=0.1, method=method, schedule=schedule))
    assert only.round == (0 if schedule == "init" else 4)
    assert only.mask.alive_count == keep_count(0.1, SIZE)
    assert {layer.score for layer in only.explanation} == {method}


@pytest.mark.parametrize("spread", ["uniform", "erk", "lamp"])
def test_spreads_reach_the_density_too(spread: str) -> None:
    (only,) = run(PruningPlan(density=0.1, spread=spread, schedule="once", layers=(("2.*", 0.05),)))
    assert only.mask.alive_count == keep_count(0.1, SIZE)
    assert only.explanation[1].after == keep_count(0.05, 96 * 128)


def test_lamp_does_not_fall_for_the_scale_of_a_layer() -> None:
    weights = weights_of(4)
    weights["2.weight"] *= 100
    parts = {}
    for spread in ("global", "lamp"):
        pruner = Pruner(PruningPlan(density=0.1, spread=spread), 40)
        found = pruner.bring(0.1, round=4, weights=weights, mask=Mask.full(DEMO), next_mask_version=1)
        assert found is not None
        parts[spread] = found.explanation[0].after / found.mask.alive_count
    assert parts["global"] < 0.1
    assert 0.3 < parts["lamp"] < 0.6


@pytest.mark.parametrize("own", [0.02, 0.9])
def test_a_layer_of_its_own_density_goes_there_at_the_pace_of_the_whole(own: float) -> None:
    found = run(PruningPlan(density=0.1 if own < 0.1 else 0.6, layers=(("2.*", own),)))
    sizes = [p.explanation[1].after / (96 * 128) for p in found]
    assert sizes[-1] == pytest.approx(own, abs=1e-3)
    assert all(before > after for before, after in pairwise([1.0, *sizes]))
    for p in found:
        assert p.mask.alive_count == pytest.approx(p.target_density * SIZE, abs=1)


def test_wanda_takes_the_same_from_every_row() -> None:
    (only,) = run(PruningPlan(density=0.25, method="wanda", schedule="once", spread="uniform"))
    for bits in only.mask.alive.values():
        assert np.ptp(bits.sum(axis=1)) <= 2


def test_data_scores_are_asked_for_only_when_a_step_needs_them() -> None:
    pruner, mask = Pruner(PruningPlan(density=0.1, method="snip"), 40), Mask.full(DEMO)
    asked = [r for r in range(41) if pruner.needs(round=r, mask=mask)]
    assert asked == [9, 14, 19, 24]
    assert pruner.needs(round=9, mask=mask) == Need(method="snip")
    assert "snip" in FROM_CLIENTS
    with pytest.raises(LocalError, match="needs the clients' scores"):
        pruner.propose(round=9, weights=weights_of(9), mask=mask, next_mask_version=1)


def test_thresholds_prune_once_and_report_what_they_reached() -> None:
    (only,) = run(PruningPlan(threshold=("mean", 1.0), schedule="once"))
    assert only.target_density == only.realised_density == pytest.approx(1 - 0.575, abs=0.01)
    (absolute,) = run(PruningPlan(threshold=("absolute", 1.0), schedule="init"))
    assert absolute.realised_density == pytest.approx(0.317, abs=0.01)


def test_a_threshold_that_empties_a_layer_stops_a_run_only_before_it_starts() -> None:
    with pytest.raises(LocalError, match="would empty"):
        run(PruningPlan(threshold=("absolute", 9.0), schedule="init"))
    (only,) = run(PruningPlan(threshold=("absolute", 9.0), schedule="once"))
    assert [layer.floor_trimmed for layer in only.explanation] == [layer.after for layer in only.explanation]
    assert all(layer.after >= 96 for layer in only.explanation)


@pytest.mark.parametrize("plan", [PruningPlan(density=0.1), PruningPlan(density=0.1, measure="cost")])
def test_the_same_density_again_is_no_new_mask(plan: PruningPlan) -> None:
    pruner = Pruner(plan, 40, cost={"0.weight": 3.0, "2.weight": 1.0})
    first = pruner.bring(0.3, round=9, weights=weights_of(9), mask=Mask.full(DEMO), next_mask_version=1)
    assert first is not None
    assert pruner.bring(0.3, round=10, weights=weights_of(10), mask=first.mask, next_mask_version=2) is None
    assert pruner.bring(0.2, round=10, weights=weights_of(10), mask=first.mask, next_mask_version=2) is not None


def test_a_budget_of_cost_is_held_at_every_step() -> None:
    cost = {"0.weight": 10.0, "2.weight": 1.0}
    full = 10.0 * 128 * 64 + 96 * 128
    found = run(PruningPlan(density=0.2, measure="cost"), cost=cost)
    assert len(found) == 4
    for p in found:
        spent = sum(cost[layer.name] * layer.after for layer in p.explanation)
        assert p.target_density * full - 10 <= spent <= p.target_density * full


@pytest.mark.parametrize("regrow", ["votes", "gradient", "posterior"])
def test_regrowth_keeps_each_layers_count(regrow: str) -> None:
    plan = PruningPlan(density=0.2, method="random", spread="erk", schedule="regrow", regrow=regrow)
    first, *exchanges = run(plan)
    assert first.round == 0
    assert [p.round for p in exchanges] == [5, 10, 15, 20]
    counts = [layer.after for layer in first.explanation]
    for p in exchanges:
        assert [layer.after for layer in p.explanation] == counts
        assert [layer.before for layer in p.explanation] == counts
        assert p.grown > 0
    assert first.grown == 0


def test_clients_that_exchange_by_themselves_are_pruned_back_to_one_mask() -> None:
    plan = PruningPlan(density=0.2, method="random", spread="erk", schedule="regrow", regrow="local")
    first = run(plan)[0].mask
    pruner = Pruner(plan, 40, seed=1)
    need = pruner.needs(round=5, mask=first)
    assert need is not None
    assert need.own
    ballots = [Ballot(client=k, examples=9, mask=_swapped(first, need.grow, k)) for k in (4, 2)]
    together = pruner.propose(round=5, weights=weights_of(5), mask=first, next_mask_version=7, ballots=ballots)
    assert together is not None
    assert {client: own.version for client, own in together.own.items()} == {2: 8, 4: 9}
    for voter in ballots:
        assert together.own[voter.client].fingerprint == voter.mask.fingerprint
        assert voter.mask.within(together.mask)
    assert together.mask.alive_count < 2 * first.alive_count
    weights = weights_of(6)
    together.mask.apply(weights)
    back = pruner.propose(
        round=6, weights=weights, mask=together.mask, next_mask_version=10, own=tuple(together.own.values())
    )
    assert back is not None
    assert not back.own
    assert [layer.after for layer in back.explanation] == [int(b.sum()) for b in first.alive.values()]
    assert back.mask.within(together.mask)


def _swapped(mask: Mask, counts: Mapping[str, int], seed: int) -> Mask:
    rng, alive = np.random.default_rng(seed), {name: bits.copy() for name, bits in mask.alive.items()}
    for name, bits in alive.items():
        flat = bits.reshape(-1)
        going, coming = rng.permutation(np.flatnonzero(flat)), rng.permutation(np.flatnonzero(~flat))
        flat[going[: counts[name]]], flat[coming[: counts[name]]] = False, True
    return Mask(schema=mask.schema, version=mask.version + 1, alive=alive)


def test_an_exchange_that_nobody_voted_on_does_not_happen() -> None:
    plan = PruningPlan(density=0.2, schedule="regrow")
    mask = run(plan)[0].mask
    assert Pruner(plan, 40).propose(round=5, weights=weights_of(5), mask=mask, next_mask_version=2) is None


def test_posteriors_survive_a_restart() -> None:
    plan = PruningPlan(density=0.2, schedule="regrow", regrow="posterior")
    masks = []
    for restart in (False, True):
        pruner, mask = Pruner(plan, 40), run(plan)[0].mask
        pruner.check(DEMO)
        for round in (1, 2, 3, 4, 5):
            pruner.observe(round=round, weights=weights_of(round), mask=mask)
            if restart and round == 3:
                kept = {n: a.copy() for n, a in pruner.beliefs.arrays().items()} if pruner.beliefs else {}
                pruner = Pruner(plan, 40)
                pruner.check(DEMO)
                assert pruner.beliefs is not None
                pruner.beliefs.restore(kept)
        need = pruner.needs(round=5, mask=mask)
        assert need is not None
        assert not need.values, "only indices travel"
        proposal = pruner.propose(
            round=5, weights=weights_of(5), mask=mask, next_mask_version=2, growth=[vote_for(need, mask, 0)]
        )
        assert proposal is not None
        masks.append(proposal.mask.fingerprint)
    assert masks[0] == masks[1]


def test_posteriors_learn_nothing_from_the_first_weights() -> None:
    pruner = Pruner(PruningPlan(density=0.2, schedule="regrow", regrow="posterior"), 40)
    pruner.check(DEMO)
    assert pruner.beliefs is not None
    pruner.observe(round=0, weights=weights_of(0), mask=Mask.full(DEMO))
    assert max(float(a.max()) for a in pruner.beliefs.arrays().values()) == 1.0
    pruner.observe(round=1, weights=weights_of(1), mask=Mask.full(DEMO))
    assert max(float(a.max()) for a in pruner.beliefs.arrays().values()) > 1.0


def test_posteriors_count_against_what_an_exchange_would_drop() -> None:
    plan = PruningPlan(density=0.2, schedule="regrow", regrow="posterior", exchange=0.4)
    mask, pruner = run(plan)[0].mask, Pruner(plan, 40)
    pruner.check(DEMO)
    assert pruner.beliefs is not None
    pruner.observe(round=12, weights=weights_of(1), mask=mask)
    # Half way to T_end = 24 the share to exchange is half of 0.4.
    for name, bits in mask.alive.items():
        assert (pruner.beliefs.beta[name] > 1).sum() == int(0.2 * bits.sum())


def test_merged_masks_are_pruned_back_to_the_budget() -> None:
    plan = PruningPlan(density=0.1, schedule="init", method="random", floors=Floors(weights=0, share=0, connect=False))
    masks = [
        Pruner(plan, 40, seed=s).bring(0.1, round=0, weights={}, mask=Mask.full(DEMO), next_mask_version=1)
        for s in range(5)
    ]
    ballots = [Ballot(client=k, examples=5, mask=p.mask) for k, p in enumerate(masks) if p]
    merged = Pruner(plan, 40).merge(
        ballots, "union", round=3, weights=weights_of(3), mask=ballots[0].mask, next_mask_version=2
    )
    assert [layer.after for layer in merged.explanation] == [int(b.sum()) for b in ballots[0].mask.alive.values()]
    union = sum(layer.before for layer in merged.explanation) / SIZE
    assert union == pytest.approx(1 - 0.9**5, abs=0.02)


@pytest.mark.parametrize(("spread", "count"), [("global", 1), ("erk", 2)])
def test_clients_are_asked_for_masks_of_what_the_step_leaves(spread: str, count: int) -> None:
    plan = PruningPlan(density=0.3, method="taylor", schedule="init", merge="union", spread=spread)
    pruner, full = Pruner(plan, 40), Mask.full(DEMO)
    pruner.check(DEMO)
    need = pruner.needs(round=0, mask=full)
    assert need is not None
    assert len(need.keep) == count
    assert sum(need.keep) == pytest.approx(keep_count(0.3, SIZE), abs=1)
    ballots = [
        Ballot(client=k, examples=9, mask=propose(scores_of(k), full, need.keep, method="taylor")) for k in range(4)
    ]
    proposal = pruner.propose(round=0, weights=weights_of(0), mask=full, next_mask_version=1, ballots=ballots)
    assert proposal is not None
    assert proposal.mask.alive_count == sum(need.keep)
    assert proposal.merged_density == pytest.approx(1 - 0.7**4, abs=0.05)
    agreed = pruner.propose(round=0, weights=weights_of(0), mask=full, next_mask_version=1, ballots=ballots[:1])
    assert agreed is not None
    assert agreed.merged_density is None
