"""Did it prune the right weights? Where the data come from a known sparse teacher, that has an answer.

A linear federation in numpy: four clients with data of their own, local gradient steps under the mask, averaging by
examples. Each way of pruning has to find the teacher's weights.
"""

import numpy as np
import pytest
from numpy.typing import NDArray

from fedprune.mask import Mask
from fedprune.pruning import Floors, PruningPlan
from fedprune.pruning.accumulate import GradientScore
from fedprune.pruning.regrowth import GrowthVote, exchange, exchange_counts, exchange_share, largest_dead
from fedprune.pruning.votes import Ballot, coverage
from fedprune.tensor import Schema, TensorSpec
from fedprune_server.proposal import Need
from fedprune_server.pruner import Pruner

Floats = NDArray[np.float32]
SHAPE = (20, 60)
SCHEMA = Schema(tensors=(TensorSpec(name="w", shape=SHAPE),))
NO_FLOORS = Floors(weights=0, share=0.0, connect=False)


def teacher(rng: np.random.Generator) -> Floats:
    weights = rng.uniform(0.5, 1.5, SHAPE) * rng.choice([-1.0, 1.0], SHAPE)
    sparse: Floats = (weights * (rng.random(SHAPE) < 0.1)).astype(np.float32)
    return sparse


def gradient(w: Floats, x: Floats, y: Floats) -> Floats:
    mean: Floats = np.asarray((x @ w.T - y).T @ x / len(x), np.float32)
    return mean


def answer(need: Need, mask: Mask, w: Floats, data: list[tuple[Floats, Floats]]) -> list[GrowthVote]:
    votes = []
    for client, (x, y) in enumerate(data):
        g = gradient(w, x, y)
        places = largest_dead({"w": g}, mask, need.grow)
        gradients = {"w": g.reshape(-1)[places["w"]]} if need.values else None
        votes.append(GrowthVote(client=client, examples=len(x), indices=places, gradients=gradients))
    return votes


def score(method: str, w: Floats, data: list[tuple[Floats, Floats]]) -> dict[str, Floats]:
    running = GradientScore(method=method)
    for x, y in data:
        running.add({"w": gradient(w, x, y)}, {"w": w}, len(x))
    return running.result()


def federation(rng: np.random.Generator) -> tuple[Floats, list[tuple[Floats, Floats]]]:
    truth, data = teacher(rng), []
    for examples in (40, 80, 120, 160):
        x = rng.standard_normal((examples, SHAPE[1])).astype(np.float32)
        data.append((x, (x @ truth.T + 0.1 * rng.standard_normal((examples, SHAPE[0]))).astype(np.float32)))
    return truth, data


def f1(mask: Mask, truth: Floats) -> float:
    found, wanted = mask.alive["w"], truth != 0
    return float(2 * (found & wanted).sum() / (found.sum() + wanted.sum()))


def federate(plan: PruningPlan, rounds: int = 60) -> float:
    """Train, prune, and give the F1 of the final mask against the teacher's."""
    rng = np.random.default_rng(11)
    truth, data = federation(rng)
    w, mask, pruner = (0.01 * rng.standard_normal(SHAPE)).astype(np.float32), Mask.full(SCHEMA), Pruner(plan, rounds)
    pruner.check(SCHEMA)
    for round in range(rounds + 1):
        for _ in range(5 if round else 0):
            steps = [(len(x), gradient(w, x, y)) for x, y in data]
            mean = sum(n * g for n, g in steps) / sum(n for n, _ in steps)
            w = np.asarray(w - 0.1 * mean * mask.alive["w"], np.float32)
        need = pruner.needs(round=round, mask=mask)
        pruner.observe(round=round, weights={"w": w}, mask=mask)
        proposal = pruner.propose(
            round=round,
            weights={"w": w},
            mask=mask,
            next_mask_version=mask.version + 1,
            scores=score(need.method, w, data) if need and not need.grow else None,
            growth=answer(need, mask, w, data) if need and need.grow else (),
        )
        if proposal:
            mask = proposal.mask
            w = w * mask.alive["w"]
    return f1(mask, truth)


def readjust(w: Floats, mask: Mask, share: float, x: Floats, y: Floats) -> tuple[Floats, Mask]:
    """One client's round in FedDST: train, exchange by its own gradient, train on, so that what grew is not zero."""
    for step in range(10):
        if step == 5 and share > 0:
            grow = {"w": np.abs(gradient(w, x, y))}
            counts = exchange_counts(mask, share)
            mask = exchange({"w": np.abs(w)}, grow, mask, counts, NO_FLOORS, mask.version, score="m").mask
            w = w * mask.alive["w"]
        w = np.asarray(w - 0.1 * gradient(w, x, y) * mask.alive["w"], np.float32)
    return w, mask


def test_clients_that_readjust_their_own_masks_find_them_together() -> None:
    rng = np.random.default_rng(11)
    truth, data = federation(rng)
    pruner = Pruner(PruningPlan(density=0.1, floors=NO_FLOORS, schedule="init", method="random"), 60)
    w = np.zeros(SHAPE, np.float32)
    start = pruner.propose(round=0, weights={"w": w}, mask=Mask.full(SCHEMA), next_mask_version=1)
    assert start is not None
    mask = start.mask
    for round in range(1, 61):
        done = [readjust(w, mask, exchange_share(round, 40, 0.3), x, y) for x, y in data]
        ballots = [Ballot(client=k, examples=len(x), mask=done[k][1]) for k, (x, _) in enumerate(data)]
        held = coverage([(b.examples, b.mask) for b in ballots])["w"]
        total = sum(b.examples * done[b.client][0] for b in ballots)
        w = np.asarray(np.divide(total, held, out=np.zeros(SHAPE), where=held > 0), np.float32)
        merged = pruner.merge(
            ballots, "union", round=round, weights={"w": w}, mask=mask, next_mask_version=mask.version + 1
        )
        assert merged.mask.alive_count == mask.alive_count
        mask = merged.mask
        w = w * mask.alive["w"]
    assert f1(mask, truth) >= 0.9


@pytest.mark.parametrize(
    "plan",
    [
        PruningPlan(density=0.1, floors=NO_FLOORS),
        PruningPlan(density=0.1, floors=NO_FLOORS, schedule="once", start=0.3),
        PruningPlan(density=0.1, floors=NO_FLOORS, schedule="once", method="taylor", start=0.02),
        PruningPlan(density=0.1, floors=NO_FLOORS, schedule="init", method="gradient"),
        PruningPlan(density=0.1, floors=NO_FLOORS, schedule="regrow", method="random", every=2),
        PruningPlan(density=0.1, floors=NO_FLOORS, schedule="regrow", method="random", every=2, regrow="gradient"),
        PruningPlan(density=0.1, floors=NO_FLOORS, schedule="regrow", method="random", every=2, regrow="posterior"),
    ],
    ids=lambda plan: f"{plan.schedule}-{plan.method}-{plan.regrow}",
)
def test_the_teachers_weights_are_found(plan: PruningPlan) -> None:
    assert federate(plan) >= 0.9


def test_random_masks_do_not_find_them() -> None:
    assert federate(PruningPlan(density=0.1, floors=NO_FLOORS, schedule="init", method="random")) < 0.3
