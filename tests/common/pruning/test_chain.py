"""Flow through chains of matrices: SynFlow against its definition, dead units against brute force."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fedprune.errors import LocalError
from fedprune.mask import Mask
from fedprune.pruning import Floors, keep_count
from fedprune.pruning.chain import chain_of, dead_units, fold_constant, synflow, synflow_mask, without_dead
from fedprune.tensor import Role, Schema, TensorSpec

MLP = Schema(
    tensors=(
        TensorSpec(name="0.weight", shape=(12, 8)),
        TensorSpec(name="0.bias", shape=(12,), role=Role.FREE),
        TensorSpec(name="2.weight", shape=(10, 12)),
        TensorSpec(name="4.weight", shape=(3, 10), role=Role.FREE),
    )
)


def weights(seed: int = 0) -> dict[str, NDArray[np.generic]]:
    rng = np.random.default_rng(seed)
    return {t.name: rng.standard_normal(t.shape).astype(np.float32) for t in MLP}


def flow(w: dict[str, NDArray[np.generic]], mask: Mask) -> float:
    names = chain_of(mask.schema)
    x = np.ones(mask.schema[names[0]].shape[1])
    for name in names:
        matrix = np.abs(w[name]).astype(np.float64)
        x = (matrix * mask.alive[name] if name in mask.alive else matrix) @ x
    return float(x.sum())


def test_synflow_is_the_derivative_of_the_flow() -> None:
    w, mask = weights(), Mask.full(MLP)
    scores, whole = synflow(MLP, w, mask), flow(w, mask)
    assert list(scores) == ["0.weight", "2.weight"]
    for name, place in [("0.weight", (3, 5)), ("2.weight", (9, 0)), ("2.weight", (0, 11))]:
        without = {n: a.copy() for n, a in w.items()}
        without[name][place] = 0
        # The flow is linear in one weight: w dR/dw is what is lost without it.
        assert scores[name][place] == pytest.approx((whole - flow(without, mask)) / whole, rel=1e-4)
    for score in scores.values():
        assert score.sum() == pytest.approx(1.0, rel=1e-5)


def test_synflow_prunes_far_without_cutting_the_model() -> None:
    w, mask = weights(), Mask.full(MLP)
    nothing = Floors(weights=0, share=0.0, connect=False)
    chosen = synflow_mask(w, mask, 0.05, nothing, 1)
    assert chosen.mask.alive_count == keep_count(0.05, mask.size)
    assert flow(w, chosen.mask) > 0
    assert all(layer.after > 0 for layer in chosen.layers)
    with pytest.raises(LocalError, match="at least one iteration"):
        synflow_mask(w, mask, 0.05, nothing, 1, iterations=0)


def test_scoring_anew_saves_the_layer_that_one_guess_would_empty() -> None:
    shapes = [(40, 30), (6, 40), (40, 6), (10, 40)]
    schema = Schema(tensors=tuple(TensorSpec(name=str(i), shape=s) for i, s in enumerate(shapes)))
    nothing = Floors(weights=0, share=0.0, connect=False)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        w: dict[str, NDArray[np.generic]] = {t.name: rng.standard_normal(t.shape).astype(np.float32) for t in schema}
        for density in (0.05, 0.01):
            once, often = (synflow_mask(w, Mask.full(schema), density, nothing, 1, iterations=n).mask for n in (1, 100))
            assert flow(w, once) == 0
            assert flow(w, often) > 0


def test_deep_chains_neither_overflow_nor_vanish() -> None:
    schema = Schema(tensors=tuple(TensorSpec(name=str(i), shape=(64, 64)) for i in range(300)))
    w = {t.name: np.full(t.shape, 1e3 if i % 2 else 1e-3, np.float32) for i, t in enumerate(schema)}
    for score in synflow(schema, w, Mask.full(schema)).values():
        assert np.isfinite(score).all()
        assert score.sum() == pytest.approx(1.0, rel=1e-3)


def cut() -> Mask:
    """Unit 2 of the first layer has no input, unit 5 no output; unit 7 of the second is fed by unit 2 alone."""
    alive = {n: bits.copy() for n, bits in Mask.full(MLP).alive.items()}
    alive["0.weight"][2] = False
    alive["2.weight"][:, 5] = False
    alive["2.weight"][7] = False
    alive["2.weight"][7, 2] = True
    return Mask(schema=MLP, version=1, alive=alive)


def test_dead_units_are_found_on_both_sides_and_downstream() -> None:
    dead = dead_units(MLP, weights(), cut())
    assert np.flatnonzero(dead["0.weight"]).tolist() == [2, 5]
    assert np.flatnonzero(dead["2.weight"]).tolist() == [7]
    assert not dead["4.weight"].any()
    assert not any(bits.any() for bits in dead_units(MLP, weights(), Mask.full(MLP)).values())


def test_without_dead_units_the_flow_is_the_same() -> None:
    mask = cut()
    dead = dead_units(MLP, weights(), mask)
    clean = Mask(schema=MLP, version=2, alive=without_dead(mask, dead))
    assert clean.within(mask)
    assert clean.alive_count < mask.alive_count
    assert not clean.alive["0.weight"][[2, 5]].any()
    assert not clean.alive["2.weight"][:, [2, 5]].any()
    assert flow(weights(), clean) == pytest.approx(flow(weights(), mask))


def test_the_constant_of_dead_units_folds_into_the_next_bias() -> None:
    rng = np.random.default_rng(0)
    w1, b1, w2, b2 = rng.normal(size=(6, 4)), rng.normal(size=6), rng.normal(size=(3, 6)), rng.normal(size=3)
    dead = np.array([True, False, False, True, False, False])
    w1[dead] = 0
    b1[0] = 1.5  # a dead unit that still speaks
    x = rng.normal(size=(10, 4))
    masked = np.maximum(x @ w1.T + b1, 0) @ w2.T + b2
    folded = fold_constant(dead, np.maximum(b1, 0), w2, b2)
    shrunk = np.maximum(x @ w1[~dead].T + b1[~dead], 0) @ w2[:, ~dead].T + folded
    assert np.abs(masked - shrunk).max() < 1e-12
    assert np.abs(masked - (shrunk - folded + b2)).max() > 0.1, "without folding the models differ"


def test_models_that_are_no_chain_are_refused() -> None:
    conv = TensorSpec(name="c", shape=(3, 3, 2, 2))
    with pytest.raises(LocalError, match="not a chain of matrices"):
        chain_of(Schema(tensors=(conv,)))
    with pytest.raises(LocalError, match="not a chain of matrices"):
        chain_of(Schema(tensors=(MLP["0.weight"], MLP["4.weight"])))
    with pytest.raises(LocalError, match="no matrix"):
        chain_of(Schema(tensors=(MLP["0.bias"],)))
