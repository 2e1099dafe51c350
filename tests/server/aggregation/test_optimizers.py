"""Server optimizers against their formulas, one weight at a time, over rounds in which masks change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from math import copysign, sqrt

import numpy as np
import pytest

from fedprune.errors import LocalError
from fedprune.mask import Mask
from fedprune_server.aggregation import Options, aggregator

from .reference import (
    Array,
    Client,
    as_input,
    assert_close,
    averaged,
    same_bits,
    small_schema,
    some_base,
    some_clients,
    some_mask,
)

SCHEMA = small_schema()
OPTIONS = Options(rate=0.3, momentum=0.8, second=0.9, floor=1e-3)
NAMES = ("fedavgm", "fedadam", "fedyogi", "fedadagrad")


def sign(x: float) -> float:
    return copysign(1, x) if x else 0.0


SECOND: dict[str, Callable[[float, float], float]] = {
    "fedadam": lambda v, d: 0.9 * v + 0.1 * d * d,
    "fedyogi": lambda v, d: v - 0.1 * d * d * sign(v - d * d),
    "fedadagrad": lambda v, d: v + d * d,
}


class Slow:
    """One weight after the other, in Python's own numbers."""

    def __init__(self, rule: str) -> None:
        self.rule = rule
        self.first: dict[tuple[str, int], float] = {}
        self.second: dict[tuple[str, int], float] = {}

    def fold(self, base: dict[str, Array], mask: Mask, clients: list[Client]) -> dict[str, Array]:
        means = averaged(SCHEMA, base, mask, clients)
        out = {n: np.array(a, np.float64) for n, a in base.items()}
        for spec in SCHEMA:
            alive = mask.alive.get(spec.name, np.ones(spec.shape, bool)).reshape(-1)
            held = [c.mask.alive.get(spec.name, np.ones(spec.shape, bool)).reshape(-1) for c in clients if c.mask]
            for j in range(spec.size):
                if not alive[j]:
                    self.first.pop((spec.name, j), None)
                    self.second.pop((spec.name, j), None)
                elif not held or any(h[j] for h in held):
                    d = float(means[spec.name].reshape(-1)[j]) - float(base[spec.name].reshape(-1)[j])
                    out[spec.name].reshape(-1)[j] += self.step((spec.name, j), d)
        return out

    def step(self, key: tuple[str, int], d: float) -> float:
        if self.rule == "fedavgm":
            self.first[key] = 0.8 * self.first.get(key, 0.0) + d
            return 0.3 * self.first[key]
        self.first[key] = 0.8 * self.first.get(key, 0.0) + 0.2 * d
        self.second[key] = SECOND[self.rule](self.second.get(key, 0.0), d)
        return 0.3 * self.first[key] / (sqrt(self.second[key]) + 1e-3)


@pytest.mark.parametrize("own_masks", [False, True])
@pytest.mark.parametrize("rule", NAMES)
def test_it_follows_its_formula_through_mask_changes(rule: str, own_masks: bool) -> None:
    rng = np.random.default_rng(1)
    fast, slow = aggregator(rule, OPTIONS), Slow(rule)
    masks = [Mask.full(SCHEMA), some_mask(SCHEMA, rng), some_mask(SCHEMA, rng), some_mask(SCHEMA, rng)]
    base, state = some_base(SCHEMA, rng), None
    for mask in masks:
        mask.apply(base)
        clients = some_clients(SCHEMA, base, mask, rng, 3, own_masks=own_masks)
        folded = fast.fold(SCHEMA, base, mask, [as_input(c, SCHEMA, mask) for c in clients], state)
        for name, wanted in slow.fold(base, mask, clients).items():
            assert_close(folded.arrays[name], wanted, rtol=2e-4, atol=2e-6)
        base, state = dict(folded.arrays), folded.state


@pytest.mark.parametrize("rule", NAMES)
def test_order_does_not_show_in_model_or_state(rule: str) -> None:
    rng = np.random.default_rng(2)
    mask = some_mask(SCHEMA, rng)
    base = some_base(SCHEMA, rng, mask)
    given = [as_input(c, SCHEMA, mask) for c in some_clients(SCHEMA, base, mask, rng, 3, own_masks=True)]
    state = aggregator(rule, OPTIONS).fold(SCHEMA, base, mask, given).state
    first, *others = [aggregator(rule, OPTIONS).fold(SCHEMA, base, mask, order, state) for order in permutations(given)]
    assert all(same_bits(first.arrays, o.arrays) and same_bits(first.state, o.state) for o in others)


@pytest.mark.parametrize("rule", NAMES)
def test_state_is_forgotten_off_the_mask_and_rests_where_nobody_trains(rule: str) -> None:
    rng = np.random.default_rng(3)
    full = Mask.full(SCHEMA)
    base = some_base(SCHEMA, rng)
    clients = some_clients(SCHEMA, base, full, rng, 2)
    one = aggregator(rule, OPTIONS).fold(SCHEMA, base, full, [as_input(c, SCHEMA, full) for c in clients])
    half = some_mask(SCHEMA, rng)
    base = dict(one.arrays)
    half.apply(base)
    held = some_mask(SCHEMA, rng, within=half)
    alone = replace(some_clients(SCHEMA, base, held, rng, 1)[0], mask=held)
    two = aggregator(rule, OPTIONS).fold(SCHEMA, base, half, [as_input(alone, SCHEMA, half)], one.state)
    alive, trained = half.alive["a.weight"].reshape(-1), held.alive["a.weight"].reshape(-1)
    for name in (n for n in two.state if n.startswith("a.weight.")):
        before, after = one.state[name], two.state[name]
        assert after.dtype == np.float32
        assert not after[~alive].any()
        assert (after[alive & ~trained] == before[alive & ~trained]).all()
        assert (after[trained] != before[trained]).any()
    resting = half.alive["a.weight"] & ~held.alive["a.weight"]
    assert (two.arrays["a.weight"][resting] == base["a.weight"][resting]).all()


def test_averaging_remembers_nothing() -> None:
    rng = np.random.default_rng(4)
    mask = Mask.full(SCHEMA)
    base = some_base(SCHEMA, rng)
    given = [as_input(c, SCHEMA, mask) for c in some_clients(SCHEMA, base, mask, rng, 2)]
    assert aggregator("fedavg").fold(SCHEMA, base, mask, given).state == {}


@pytest.mark.parametrize("rule", NAMES)
def test_statistics_are_merged_not_stepped(rule: str) -> None:
    schema = small_schema(statistics=True)
    rng = np.random.default_rng(5)
    mask = Mask.full(schema)
    base = some_base(schema, rng)
    given = [as_input(c, schema, mask) for c in some_clients(schema, base, mask, rng, 3)]
    plain = aggregator("fedavg").fold(schema, base, mask, given)
    stepped = aggregator(rule, OPTIONS).fold(schema, base, mask, given)
    assert (stepped.arrays["n.running_var"] == plain.arrays["n.running_var"]).all()
    assert not any(name.startswith("n.") for name in stepped.state)


@pytest.mark.parametrize(
    "options",
    [Options(rate=0.0), Options(momentum=1.0), Options(momentum=-0.1), Options(second=1.0), Options(floor=0.0)],
)
def test_options_out_of_range_are_refused(options: Options) -> None:
    with pytest.raises(LocalError):
        aggregator("fedadam", options)


def test_an_unknown_rule_is_told_the_known_ones() -> None:
    with pytest.raises(LocalError, match=r"got best, expected fedavg \| fedavgm"):
        aggregator("best")
