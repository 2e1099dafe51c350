"""Robust rules against slow references; hostile updates; masks; and no trace of the order of arrival."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from math import ceil, dist, hypot, inf, sqrt
from statistics import median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprune.errors import LocalError, UpdateError
from fedprune.mask import Mask
from fedprune.tensor import Role
from fedprune_server.aggregation import RULES, FoldInput, Options, aggregator
from fedprune_server.aggregation.columns import ROWS, mixed
from fedprune_server.aggregation.vectors import nearest, norms, unlikeness

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
    sparse,
)

SCHEMA = small_schema()
FULL = Mask.full(SCHEMA)
ROBUST = ("trimmed_mean", "median", "multi_krum", "norm_clip")
seeds = st.integers(0, 1 << 32)


def moved(client: Client, base: dict[str, Array]) -> list[float]:
    """All differences of a client's weights, end to end."""
    return [float(x) for n in base for x in (np.asarray(client.weights[n], float) - base[n]).reshape(-1)]


def middle(values: list[float], trim: float) -> float:
    cut = min(ceil(trim * len(values)), (len(values) - 1) // 2)
    kept = sorted(values)[cut : len(values) - cut]
    return sum(kept) / len(kept)


@given(seeds, st.integers(1, 7), st.booleans(), st.sampled_from([0.1, 0.2, 0.34, 0.5]))
@settings(max_examples=30)
def test_the_trimmed_mean_is_the_middle_of_the_holders(seed: int, count: int, own_masks: bool, trim: float) -> None:
    rng = np.random.default_rng(seed)
    mask = some_mask(SCHEMA, rng)
    base = some_base(SCHEMA, rng, mask)
    clients = some_clients(SCHEMA, base, mask, rng, count, own_masks=own_masks)
    rule = aggregator("trimmed_mean", Options(trim=trim))
    folded = rule.fold(SCHEMA, base, mask, [as_input(c, SCHEMA, mask) for c in clients])
    for spec in SCHEMA:
        wanted = np.array(base[spec.name], np.float64)
        for place in np.ndindex(spec.shape):
            free = spec.role is Role.FREE
            voters = [c for c in clients if free or (c.mask or mask).alive[spec.name][place]]
            if voters and (free or mask.alive[spec.name][place]):
                wanted[place] += middle(
                    [float(c.weights[spec.name][place]) - float(base[spec.name][place]) for c in voters], trim
                )
        assert_close(folded.arrays[spec.name], wanted, rtol=1e-6, atol=1e-8)


def test_the_median_is_the_median() -> None:
    rng = np.random.default_rng(1)
    base = some_base(SCHEMA, rng)
    for count in (3, 4):
        clients = some_clients(SCHEMA, base, FULL, rng, count)
        folded = aggregator("median").fold(SCHEMA, base, FULL, [as_input(c, SCHEMA, FULL) for c in clients])
        stacked = np.stack([np.asarray(c.weights["head"], float) for c in clients])
        assert_close(folded.arrays["head"], np.median(stacked, axis=0), rtol=1e-6, atol=1e-8)


def unlike(p: list[float], q: list[float]) -> float:
    """Squared distance over the product of the lengths."""
    return dist(p, q) ** 2 / (hypot(*p) * hypot(*q))


def nearest_means(clients: list[Client], base: dict[str, Array], hostile: int) -> list[dict[str, Array]]:
    """Each client's weights as the mean of those of its nearest, itself among them."""
    points = [moved(c, base) for c in clients]
    found = []
    for p in points:
        by_distance = sorted((unlike(p, q), j) for j, q in enumerate(points))
        group = [clients[j].weights for _, j in by_distance[: len(points) - hostile]]
        found.append({n: np.mean([np.asarray(weights[n], float) for weights in group], axis=0) for n in base})
    return found


@given(seeds, st.integers(1, 7), st.sampled_from(["trimmed_mean", "median"]))
@settings(max_examples=20)
def test_mixing_takes_the_middle_of_means_of_the_nearest(seed: int, count: int, name: str) -> None:
    rng = np.random.default_rng(seed)
    base = some_base(SCHEMA, rng)
    clients = some_clients(SCHEMA, base, FULL, rng, count)
    hostile = min(ceil(0.2 * count), (count - 1) // 2)
    means = nearest_means(clients, base, hostile)
    rule = aggregator(name, Options(mixing=True))
    folded = rule.fold(SCHEMA, base, FULL, [as_input(c, SCHEMA, FULL) for c in clients])
    for tensor in ("head", next(s.name for s in SCHEMA if s.role is Role.PRUNABLE)):
        wanted = np.empty(base[tensor].shape)
        for place in np.ndindex(wanted.shape):
            wanted[place] = middle([float(m[tensor][place]) for m in means], 0.5 if name == "median" else 0.2)
        assert_close(folded.arrays[tensor], wanted, rtol=1e-5, atol=1e-7)


def test_mixing_counts_holders_only() -> None:
    matrix = np.array([[1.0, 3.0, np.nan], [2.0, np.nan, np.nan]])
    means = mixed(matrix, [(0, 1), (1, 2), (0, 2)])
    np.testing.assert_array_equal(means, [[2.0, 3.0, np.nan], [2.0, np.nan, np.nan]])


@pytest.mark.parametrize("name", ["trimmed_mean", "median"])
def test_mixing_leaves_no_trace_of_the_order_of_arrival(name: str) -> None:
    rng = np.random.default_rng(4)
    base = some_base(SCHEMA, rng)
    clients = [
        replace(c, name=f"client {k}") for k, c in enumerate(some_clients(SCHEMA, base, FULL, rng, 5, own_masks=True))
    ]
    given = [as_input(c, SCHEMA, FULL) for c in clients]
    rule = aggregator(name, Options(mixing=True))
    first = rule.fold(SCHEMA, base, FULL, given)
    for order in list(permutations(given))[::7]:
        assert same_bits(rule.fold(SCHEMA, base, FULL, order).arrays, first.arrays)


def test_the_nearest_are_settled_by_name() -> None:
    assert nearest(np.zeros((3, 3)), ["c", "a", "b"], 1) == [(1, 0), (1, 2), (1, 2)]


def krum_scores(clients: list[Client], base: dict[str, Array], hostile: int) -> list[float]:
    points = [moved(c, base) for c in clients]
    return [
        sum(sorted(unlike(p, q) for j, q in enumerate(points) if j != i)[: len(clients) - hostile - 2])
        for i, p in enumerate(points)
    ]


@given(seeds, st.sampled_from([7, 8, 10]))
@settings(max_examples=20)
def test_multi_krum_counts_the_closest(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    base = some_base(SCHEMA, rng)
    clients = some_clients(SCHEMA, base, FULL, rng, count)
    folded = aggregator("multi_krum").fold(SCHEMA, base, FULL, [as_input(c, SCHEMA, FULL) for c in clients])
    hostile = ceil(0.2 * count)
    scores = krum_scores(clients, base, hostile)
    best = sorted(range(count), key=lambda i: scores[i])[: count - hostile]
    assert folded.counted == tuple(clients[i].name for i in sorted(best))
    assert folded.warnings == ()
    wanted = averaged(SCHEMA, base, FULL, [replace(clients[i], examples=1) for i in best])
    for name, array in folded.arrays.items():
        assert_close(array, wanted[name], rtol=1e-6, atol=1e-9)


def test_equal_scores_are_settled_by_name() -> None:
    rng = np.random.default_rng(2)
    base = some_base(SCHEMA, rng)
    same = [replace(Client(weights=base, examples=1), name=f"client {k}") for k in range(5)]
    for order in permutations([as_input(c, SCHEMA, FULL) for c in same]):
        folded = aggregator("multi_krum").fold(SCHEMA, base, FULL, order)
        assert sorted(folded.counted) == ["client 0", "client 1", "client 2", "client 3"]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_small_round_says_what_multi_krum_can_stand(count: int) -> None:
    rng = np.random.default_rng(3)
    base = some_base(SCHEMA, rng)
    given_ = [as_input(c, SCHEMA, FULL) for c in some_clients(SCHEMA, base, FULL, rng, count)]
    folded = aggregator("multi_krum").fold(SCHEMA, base, FULL, given_)
    assert len(folded.counted) == count
    assert len(folded.warnings) == 1
    assert "stands 0" in folded.warnings[0]


@given(seeds, st.booleans())
@settings(max_examples=20)
def test_clipping_shortens_to_the_norm(seed: int, fixed: bool) -> None:
    rng = np.random.default_rng(seed)
    base = some_base(SCHEMA, rng)
    clients = some_clients(SCHEMA, base, FULL, rng, 4)
    lengths = [sqrt(sum(x * x for x in moved(c, base))) for c in clients]
    assert norms(SCHEMA, base, FULL, [as_input(c, SCHEMA, FULL) for c in clients]) == pytest.approx(lengths, rel=1e-12)
    most = 0.02 if fixed else median(lengths)
    rule = aggregator("fedavg", Options(clip_norm=most)) if fixed else aggregator("norm_clip")
    folded = rule.fold(SCHEMA, base, FULL, [as_input(c, SCHEMA, FULL) for c in clients])
    short = []
    for client, length in zip(clients, lengths, strict=True):
        factor = min(1.0, most / length)
        weights = {n: base[n] + factor * (np.asarray(client.weights[n], float) - base[n]) for n in base}
        short.append(replace(client, weights=weights))
    wanted = averaged(SCHEMA, base, FULL, short)
    for name, array in folded.arrays.items():
        assert_close(array, wanted[name], rtol=1e-6, atol=1e-8)


def test_an_update_that_did_not_move_has_no_length() -> None:
    base = some_base(SCHEMA, np.random.default_rng(4))
    still = [as_input(Client(weights=base, examples=1), SCHEMA, FULL)]
    assert same_bits(aggregator("norm_clip").fold(SCHEMA, base, FULL, still).arrays, base)


@pytest.mark.parametrize("rule", ROBUST)
@pytest.mark.parametrize("selected", [False, True])
@pytest.mark.parametrize("own_masks", [False, True])
def test_order_does_not_show(rule: str, selected: bool, own_masks: bool) -> None:
    rng = np.random.default_rng(5)
    schema = small_schema(width=ROWS // 4 + 3, statistics=True)
    mask = some_mask(schema, rng)
    base = some_base(schema, rng, mask)
    given_ = [
        as_input(c, schema, mask, base=base) for c in some_clients(schema, base, mask, rng, 5, own_masks=own_masks)
    ]
    if selected:
        given_ = [sparse(g, schema, mask, {t.name: rng.random(t.shape) < 0.3 for t in schema}) for g in given_]
    orders = [given_, given_[::-1], given_[2:] + given_[:2], [given_[i] for i in (3, 0, 4, 1, 2)]]
    first, *others = [aggregator(rule).fold(schema, base, mask, order) for order in orders]
    assert all(same_bits(first.arrays, other.arrays) for other in others)
    assert not first.arrays["a.weight"][~mask.alive["a.weight"]].any()


@pytest.mark.parametrize("rule", ROBUST)
def test_selected_differences_are_whole_ones_with_zeros(rule: str) -> None:
    rng = np.random.default_rng(6)
    mask = some_mask(SCHEMA, rng)
    base = some_base(SCHEMA, rng, mask)
    whole, some = [], []
    for client in some_clients(SCHEMA, base, mask, rng, 5, own_masks=True):
        keep = {t.name: rng.random(t.shape) < 0.5 for t in SCHEMA}
        given_ = as_input(client, SCHEMA, mask, base=base)
        some.append(sparse(given_, SCHEMA, mask, keep))
        step = {n: np.where(keep[n], client.weights[n] - base[n], 0) for n in base}
        weights = {n: (base[n] + step[n]).astype(np.float32) for n in base}
        assert client.mask is not None
        client.mask.apply(weights)
        whole.append(as_input(replace(client, weights=weights), SCHEMA, mask, base=base))
    one, other = (aggregator(rule).fold(SCHEMA, base, mask, given_).arrays for given_ in (whole, some))
    for name in one:
        assert_close(one[name], other[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("rule", ["trimmed_mean", "median", "multi_krum"])
@pytest.mark.parametrize("attack", ["flip", "scale", "agree"])
def test_hostile_updates_do_not_carry_the_round(rule: str, attack: str) -> None:
    """Two of ten: the result stays where the honest ones are. Plain averaging is carried away, so the test can fail."""
    rng = np.random.default_rng(7)
    base = some_base(SCHEMA, rng)
    drift = {n: np.asarray(rng.standard_normal(a.shape), np.float32) for n, a in base.items()}
    clients = []
    for k in range(10):
        noise = {n: np.asarray(rng.standard_normal(a.shape) * 0.05, np.float32) for n, a in base.items()}
        step = {n: drift[n] + noise[n] for n in base}
        if k in (3, 8):
            factor = {"flip": -10.0, "scale": 100.0, "agree": 0.0}[attack]
            step = {n: (factor * step[n] + (50.0 if attack == "agree" else 0.0)).astype(np.float32) for n in base}
        clients.append(Client(weights={n: base[n] + step[n] for n in base}, examples=10**6 if k == 3 else 100))

    def error(name: str) -> float:
        named = [replace(as_input(c, SCHEMA, FULL), party=f"client {k}") for k, c in enumerate(clients)]
        arrays = aggregator(name).fold(SCHEMA, base, FULL, named).arrays
        return max(float(np.abs(np.asarray(arrays[n], float) - base[n] - drift[n]).max()) for n in base)

    assert error(rule) < 0.2
    assert error("fedavg") > 1.0


def test_unlikeness_is_symmetric_and_told_by_ratio_and_direction() -> None:
    base = {t.name: np.zeros(t.shape, np.float32) for t in SCHEMA}
    clients = [
        Client(weights={n: np.full(a.shape, v, np.float32) for n, a in base.items()}, examples=1) for v in (1, 4, -1, 0)
    ]
    found = unlikeness(SCHEMA, base, FULL, [as_input(c, SCHEMA, FULL) for c in clients])
    # r + 1/r - 2 cos
    assert found.tolist() == [[0, 2.25, 4, inf], [2.25, 0, 6.25, inf], [4, 6.25, 0, inf], [inf, inf, inf, 0]]


def test_short_lies_are_nobody_s_neighbours() -> None:
    """Half the mean of the honest, backwards: by distance alone everyone's nearest."""
    rng = np.random.default_rng(10)
    base = some_base(SCHEMA, rng)
    size = SCHEMA.parameters
    honest = 0.3 + rng.standard_normal((8, size))
    points = [*honest, *[-0.5 * honest.mean(0)] * 2]
    unlike = unlikeness(SCHEMA, base, FULL, [as_input(moving(base, p), SCHEMA, FULL) for p in points])
    plain = np.array([[dist(p, q) for q in points] for p in points])
    names = [f"client {k}" for k in range(10)]
    assert all({8, 9} <= set(group) for group in nearest(plain, names, 2))
    assert all(not {8, 9} & set(group) for group in nearest(unlike, names, 2)[:8])


def moving(base: dict[str, Array], by: Array) -> Client:
    """A client that moves the weights by so much [parameters]."""
    ends = np.cumsum([a.size for a in base.values()])
    parts = np.split(by, ends[:-1])
    weights = {n: np.asarray(a + p.reshape(a.shape), np.float32) for (n, a), p in zip(base.items(), parts, strict=True)}
    return Client(weights=weights, examples=1)


@pytest.mark.parametrize("rule", RULES)
def test_what_is_not_finite_is_refused_by_every_rule(rule: str) -> None:
    rng = np.random.default_rng(8)
    base = some_base(SCHEMA, rng)
    good, bad = some_clients(SCHEMA, base, FULL, rng, 2)
    bad = replace(bad, weights={**bad.weights, "head": np.full((2, 3), np.nan, np.float32)})
    with pytest.raises(UpdateError, match=r"client 1: update is not finite in tensor 'head'"):
        aggregator(rule).fold(SCHEMA, base, FULL, [as_input(c, SCHEMA, FULL) for c in (good, bad)])


@pytest.mark.parametrize("rule", RULES)
def test_one_client_is_a_round(rule: str) -> None:
    rng = np.random.default_rng(9)
    schema = small_schema(statistics=True)
    mask = some_mask(schema, rng)
    base = some_base(schema, rng, mask)
    client = some_clients(schema, base, mask, rng, 1)[0]
    folded = aggregator(rule).fold(schema, base, mask, [as_input(client, schema, mask)])
    assert list(folded.arrays) == [t.name for t in schema]
    assert (folded.arrays["a.bias"] != base["a.bias"]).any()


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ("trimmed_mean", Options(trim=0.0)),
        ("trimmed_mean", Options(trim=0.6)),
        ("multi_krum", Options(attackers=0.5)),
        ("multi_krum", Options(attackers=0.0)),
        ("fedavg", Options(clip_norm=-1.0)),
    ],
)
def test_options_out_of_range_are_refused(rule: str, options: Options) -> None:
    with pytest.raises(LocalError):
        aggregator(rule, options)


def test_no_more_than_two_passes_over_an_update() -> None:
    base = some_base(SCHEMA, np.random.default_rng(10))
    given_ = as_input(Client(weights=base, examples=1), SCHEMA, FULL)
    opened = 0

    def counted() -> Iterator[tuple[object, object]]:
        nonlocal opened
        opened += 1
        return given_.open()

    update: FoldInput = replace(given_, open=counted)  # type: ignore[arg-type]  # likewise
    aggregator("multi_krum").fold(SCHEMA, base, FULL, [update])
    assert opened == 2
