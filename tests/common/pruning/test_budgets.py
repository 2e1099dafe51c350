"""Users' numbers become counts; thresholds prune what theory says; costs stay within their budget."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fedprune.errors import LocalError
from fedprune.mask import Mask
from fedprune.pruning import CostShare, Floors, select
from fedprune.pruning.budgets import absolute_threshold, bytes_target, cost_share, mean_threshold, target
from fedprune.tensor import Role, Schema, TensorSpec

SCHEMA = Schema(
    tensors=(TensorSpec(name="w", shape=(100, 90)), TensorSpec(name="b", shape=(1000,), role=Role.FREE)),
)
WIDE = Schema(tensors=(TensorSpec(name="w", shape=(1000, 1000)),))


@pytest.mark.parametrize(
    ("kind", "value", "keep"),
    [
        ("density", 0.1, 900),
        ("keep", 0.1, 900),
        ("sparsity", 0.9, 900),
        ("compression", 10, 900),
        ("parameters", 77, 77),
    ],
)
def test_the_same_budget_in_every_tongue(kind: str, value: float, keep: int) -> None:
    found = target(kind, value, SCHEMA)
    assert found.keep == keep
    assert found.density == keep / 9000
    assert found.density_of_all == (keep + 1000) / 10_000
    assert "over prunable weights" in found.says


@pytest.mark.parametrize(
    ("kind", "value", "keep"),
    [("density", 0.5, 4000), ("sparsity", 0.5, 4000), ("compression", 4, 1500), ("parameters", 1200, 200)],
)
def test_over_all_weights_the_free_ones_are_paid_first(kind: str, value: float, keep: int) -> None:
    found = target(kind, value, SCHEMA, over="all")
    assert found.keep == keep
    assert "over all weights" in found.says
    assert str(keep) in found.says


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("density", 0.1),
        ("compression", 10),
        ("parameters", 1000),
        ("sparsity", 1.0),
        ("density", 1.5),
        ("compression", 0),
    ],
)
def test_impossible_budgets_are_refused(kind: str, value: float) -> None:
    with pytest.raises(LocalError, match="no mask can meet"):
        target(kind, value, SCHEMA, over="all")


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(LocalError, match="no such budget"):
        target("hope", 1.0, SCHEMA)


def test_bytes_a_round_pay_for_headers_and_free_weights_first() -> None:
    assert bytes_target(8100, SCHEMA, bytes_per_weight=4, fixed_bytes=100).keep == 1000
    with pytest.raises(LocalError, match="no mask can meet 4000 bytes"):
        bytes_target(4000, SCHEMA, bytes_per_weight=4, fixed_bytes=100)
    with pytest.raises(LocalError, match="must weigh something"):
        bytes_target(4000, SCHEMA, bytes_per_weight=0)


def gaussian(rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.standard_normal((1000, 1000))


def laplace(rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.laplace(size=(1000, 1000))


def uniform(rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.uniform(-1, 1, (1000, 1000))


@pytest.mark.parametrize(("draw", "pruned"), [(gaussian, 0.575), (laplace, 0.632), (uniform, 0.5)])
def test_the_mean_rule_prunes_what_theory_says(draw: object, pruned: float) -> None:
    assert callable(draw)
    w = {"w": np.abs(draw(np.random.default_rng(0))).astype(np.float32)}
    (share,) = mean_threshold(w, Mask.full(WIDE))
    assert 1 - share.keep / 1e6 == pytest.approx(pruned, abs=0.005)


def test_the_mean_is_that_of_the_survivors_so_the_rule_compounds() -> None:
    w = {"w": np.abs(gaussian(np.random.default_rng(0))).astype(np.float32)}
    once = select(w, Mask.full(WIDE), mean_threshold(w, Mask.full(WIDE)), Floors(), 1, score="m").mask
    (again,) = mean_threshold(w, once)
    assert 0 < again.keep < once.alive_count


def test_an_absolute_threshold_is_exact_and_shown_before_it_is_applied() -> None:
    w = {"w": np.arange(9000, dtype=np.float32).reshape(100, 90)}
    (share,) = absolute_threshold(w, Mask.full(SCHEMA), 8000.0)
    assert share.keep == 1000
    chosen = select(w, Mask.full(SCHEMA), [share], Floors(connect=False), 1, score="magnitude")
    assert (chosen.mask.alive["w"] == (w["w"] >= 8000)).all()
    assert chosen.layers[0].threshold == 8000


def test_a_threshold_that_would_empty_a_layer_names_it() -> None:
    w = {"w": np.full((100, 90), 0.25, np.float32)}
    with pytest.raises(LocalError, match=r"threshold 0\.3 would empty 'w' \(got its largest weight is 0\.25"):
        absolute_threshold(w, Mask.full(SCHEMA), 0.3)
    with pytest.raises(LocalError, match="2 x mean"):
        mean_threshold(w, Mask.full(SCHEMA), 2.0)
    (share,) = absolute_threshold(w, Mask.full(SCHEMA), 0.3, strict=False)
    assert share.keep == 1


CONV = Schema(tensors=(TensorSpec(name="conv", shape=(8, 4, 3, 3)), TensorSpec(name="fc", shape=(40, 30))))
COST = {"conv": 49.0, "fc": 1.0}


@pytest.mark.parametrize("budget", [900.0, 3000.0, 8000.0])
def test_a_cost_budget_is_kept_and_used_up(budget: float) -> None:
    rng = np.random.default_rng(2)
    scores = {t.name: rng.random(t.shape, np.float32) for t in CONV}
    floors = Floors(weights=4, share=0.0)
    chosen = select(scores, Mask.full(CONV), CostShare(cost=COST, budget=budget), floors, 1, score="m")
    spent = sum(COST[layer.name] * layer.after for layer in chosen.layers)
    assert budget - max(COST.values()) < spent <= budget


def test_floors_come_before_the_cost() -> None:
    scores = {t.name: np.random.default_rng(0).random(t.shape, np.float32) for t in CONV}
    chosen = select(scores, Mask.full(CONV), CostShare(cost=COST, budget=10.0), Floors(), 1, score="m")
    assert [layer.after for layer in chosen.layers] == [layer.floor_trimmed for layer in chosen.layers]
    assert all(layer.after >= 16 for layer in chosen.layers)


def test_cheap_weights_go_last_at_equal_scores() -> None:
    scores = {t.name: np.ones(t.shape, np.float32) for t in CONV}
    chosen = select(
        scores,
        Mask.full(CONV),
        CostShare(cost=COST, budget=1200),
        Floors(weights=0, share=0, connect=False),
        1,
        score="m",
    )
    assert {layer.name: layer.after for layer in chosen.layers} == {"conv": 0, "fc": 1200}


def test_a_cost_budget_as_a_share_of_the_full_cost() -> None:
    full = 288 * 49 + 1200
    assert cost_share(full / 2 + 7, Mask.full(CONV), COST, fixed=7) == pytest.approx(0.5)
    assert cost_share(9 * full, Mask.full(CONV), COST) == 1.0
    with pytest.raises(LocalError, match="spent before a prunable weight"):
        cost_share(6, Mask.full(CONV), COST, fixed=7)
    with pytest.raises(LocalError, match="must cost something"):
        CostShare(cost={"w": 0.0}, budget=1)
