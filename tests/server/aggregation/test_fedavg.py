"""Federated averaging against the slow reference: one mask, many masks, running statistics, odd dtypes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprune.codec import Content, Packed, UpdateReader, encode_update
from fedprune.errors import LocalError, UpdateError
from fedprune.mask import Mask
from fedprune.tensor import Role, Schema, TensorSpec
from fedprune_server.aggregation import FoldInput, Options, aggregator, fedavg

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
seeds = st.integers(0, 1 << 32)


@given(seeds, st.integers(1, 6), st.booleans(), st.booleans(), st.sampled_from([1.0, 0.5]))
@settings(max_examples=40)
def test_it_is_the_plain_average(seed: int, count: int, pruned: bool, own_masks: bool, rate: float) -> None:
    rng = np.random.default_rng(seed)
    mask = some_mask(SCHEMA, rng) if pruned else Mask.full(SCHEMA)
    base = some_base(SCHEMA, rng, mask)
    clients = some_clients(SCHEMA, base, mask, rng, count, own_masks=own_masks)
    folded = fedavg(rate=rate).fold(SCHEMA, base, mask, [as_input(c, SCHEMA, mask) for c in clients])
    wanted = averaged(SCHEMA, base, mask, clients, rate)
    for name, array in folded.arrays.items():
        assert array.dtype == np.float32
        assert_close(array, wanted[name], rtol=1e-6, atol=1e-9)
    assert not any(bool(folded.arrays[n][~mask.alive[n]].any()) for n in mask.alive)


@given(seeds, st.booleans())
@settings(max_examples=20)
def test_arrival_order_does_not_show(seed: int, own_masks: bool) -> None:
    rng = np.random.default_rng(seed)
    schema = small_schema(statistics=True)
    mask = some_mask(schema, rng)
    base = some_base(schema, rng, mask)
    given_ = [as_input(c, schema, mask) for c in some_clients(schema, base, mask, rng, 4, own_masks=own_masks)]
    first, *others = [fedavg().fold(schema, base, mask, order).arrays for order in permutations(given_)]
    assert all(same_bits(first, other) for other in others)


@given(seeds, st.booleans())
@settings(max_examples=20)
def test_differences_and_weights_are_the_same_news(seed: int, own_masks: bool) -> None:
    rng = np.random.default_rng(seed)
    mask = some_mask(SCHEMA, rng)
    base = some_base(SCHEMA, rng, mask)
    clients = some_clients(SCHEMA, base, mask, rng, 3, own_masks=own_masks)
    weights = fedavg().fold(SCHEMA, base, mask, [as_input(c, SCHEMA, mask) for c in clients])
    deltas = fedavg().fold(SCHEMA, base, mask, [as_input(c, SCHEMA, mask, base=base) for c in clients])
    for name, array in weights.arrays.items():
        assert_close(deltas.arrays[name], array, rtol=1e-5, atol=1e-7)


@given(seeds, st.booleans(), st.booleans())
@settings(max_examples=30)
def test_what_was_left_out_counts_as_zero(seed: int, pruned: bool, own_masks: bool) -> None:
    rng = np.random.default_rng(seed)
    mask = some_mask(SCHEMA, rng) if pruned else Mask.full(SCHEMA)
    base = some_base(SCHEMA, rng, mask)
    clients = some_clients(SCHEMA, base, mask, rng, 3, own_masks=own_masks)
    whole, selected = [], []
    for client in clients:
        keep = {t.name: rng.random(t.shape) < 0.4 for t in SCHEMA}
        given_ = as_input(client, SCHEMA, mask, base=base)
        selected.append(sparse(given_, SCHEMA, mask, keep))
        zeroed = {
            n: base[n] + np.where(keep[n], client.weights[n] - base[n], 0).astype(np.float32) for n in client.weights
        }
        (client.mask or mask).apply(zeroed)
        whole.append(as_input(replace(client, weights=zeroed), SCHEMA, mask, base=base))
    some = fedavg().fold(SCHEMA, base, mask, selected).arrays
    for name, array in fedavg().fold(SCHEMA, base, mask, whole).arrays.items():
        assert_close(some[name], array, rtol=1e-6, atol=1e-7)


def test_weights_left_out_because_they_are_zero_pull_towards_zero() -> None:
    schema = Schema(tensors=(TensorSpec(name="w", shape=(1, 3)),))
    base = {"w": np.array([[1, 1, 1]], np.float32)}
    frame = encode_update({"w": np.array([[0, 3, 0]], np.float32)}, schema=schema)
    reader = UpdateReader(frame, schema=schema)
    assert next(iter(reader))[1].indices is not None
    update = FoldInput(examples=1, content=reader.content, open=partial(iter, reader))
    assert fedavg().fold(schema, base, Mask.full(schema), [update]).arrays["w"].tolist() == [[0, 3, 0]]


def test_a_weight_held_by_one_client_gets_all_of_its_difference() -> None:
    rng = np.random.default_rng(1)
    mask = Mask.full(SCHEMA)
    base = some_base(SCHEMA, rng)
    small, large = some_clients(SCHEMA, base, mask, rng, 2)
    only = np.zeros((4, 5), np.bool_)
    only[2, 3] = True
    mine = Mask(schema=SCHEMA, version=1, alive={"a.weight": only})
    theirs = Mask(schema=SCHEMA, version=1, alive={"a.weight": ~only & (np.arange(5) != 0)})
    clients = [replace(small, mask=mine, examples=1), replace(large, mask=theirs, examples=100_000)]
    folded = fedavg().fold(SCHEMA, base, mask, [as_input(c, SCHEMA, mask) for c in clients])
    assert folded.counted == ("client 0", "client 1")
    assert folded.arrays["a.weight"][2, 3] == small.weights["a.weight"][2, 3]
    assert (folded.arrays["a.weight"][:, 0] == base["a.weight"][:, 0]).all()
    assert folded.uncovered == 4


@pytest.mark.parametrize(("share", "part"), [(0.0, 1.0), (0.1, 1.0), (0.2, 0.5), (1.0, 0.1)])
def test_a_weight_that_few_examples_stand_behind_moves_less(share: float, part: float) -> None:
    rng = np.random.default_rng(1)
    mask = Mask.full(SCHEMA)
    base = some_base(SCHEMA, rng)
    small, large = some_clients(SCHEMA, base, mask, rng, 2)
    only = np.zeros((4, 5), np.bool_)
    only[2, 3] = True
    mine = Mask(schema=SCHEMA, version=1, alive={"a.weight": only})
    theirs = Mask(schema=SCHEMA, version=1, alive={"a.weight": ~only})
    clients = [replace(small, mask=mine, examples=10), replace(large, mask=theirs, examples=90)]
    rule = aggregator("fedavg", Options(damping=share))
    folded = rule.fold(SCHEMA, base, mask, [as_input(c, SCHEMA, mask) for c in clients]).arrays
    moved = folded["a.weight"] - base["a.weight"]
    assert_close(moved[2, 3], part * (small.weights["a.weight"] - base["a.weight"])[2, 3], rtol=1e-4)
    wanted = (large.weights["a.weight"] - base["a.weight"])[~only]
    assert_close(moved[~only], min(1.0, 0.9 / max(share, 0.1)) * wanted, rtol=1e-4)
    with pytest.raises(LocalError, match="no such damping"):
        aggregator("fedavg", Options(damping=1.5))


def test_uncovered_weights_are_counted_over_all_tensors() -> None:
    schema = Schema(tensors=tuple(TensorSpec(name=name, shape=(2, 3)) for name in "ab"))
    mask = Mask.full(schema)
    base = some_base(schema, np.random.default_rng(3))
    first = np.arange(6).reshape(2, 3) == 0
    own = Mask(schema=schema, version=1, alive={"a": first, "b": ~first})
    client = Client(weights={n: base[n] * own.alive[n] for n in base}, examples=1, mask=own)
    assert fedavg().fold(schema, base, mask, [as_input(client, schema, mask)]).uncovered == 6


def test_a_holder_outside_the_mask_of_the_run_changes_nothing_there() -> None:
    rng = np.random.default_rng(2)
    mask = some_mask(SCHEMA, rng)
    base = some_base(SCHEMA, rng, mask)
    wide = some_clients(SCHEMA, some_base(SCHEMA, rng), Mask.full(SCHEMA), rng, 1)[0]
    wide = replace(wide, mask=Mask.full(SCHEMA))
    folded = fedavg().fold(SCHEMA, base, mask, [as_input(wide, SCHEMA, mask)])
    assert not folded.arrays["a.weight"][~mask.alive["a.weight"]].any()
    alive = mask.alive["a.weight"]
    assert_close(folded.arrays["a.weight"][alive], wide.weights["a.weight"][alive], rtol=1e-6)


class TestStatistics:
    SCHEMA = small_schema(statistics=True)

    def pooled(self, samples: list[Array]) -> dict[str, Array]:
        whole = np.concatenate(samples)
        return {"n.running_mean": whole.mean(0), "n.running_var": whole.var(0)}

    def test_merged_statistics_are_those_of_the_union(self) -> None:
        rng = np.random.default_rng(3)
        mask = Mask.full(self.SCHEMA)
        base = some_base(self.SCHEMA, rng)
        samples = [rng.normal(k, 1 + k, (50 * (k + 1), 4)) for k in range(3)]
        clients = []
        for client, sample in zip(some_clients(self.SCHEMA, base, mask, rng, 3), samples, strict=True):
            own = {n: a.astype(np.float32) for n, a in self.pooled([sample]).items()}
            clients.append(replace(client, weights={**client.weights, **own}, examples=len(sample)))
        folded = fedavg(rate=0.1).fold(self.SCHEMA, base, mask, [as_input(c, self.SCHEMA, mask) for c in clients])
        for name, wanted in self.pooled(samples).items():
            assert_close(folded.arrays[name], wanted, rtol=1e-5)

    def test_equal_statistics_stay(self) -> None:
        rng = np.random.default_rng(4)
        base = some_base(self.SCHEMA, rng)
        base["n.running_var"] = np.zeros(4, np.float32)
        clients = [Client(weights=base, examples=n) for n in (1, 7)]
        mask = Mask.full(self.SCHEMA)
        folded = fedavg().fold(self.SCHEMA, base, mask, [as_input(c, self.SCHEMA, mask) for c in clients])
        assert same_bits(folded.arrays, base)

    def test_raw_inputs_have_large_statistics(self) -> None:
        rng = np.random.default_rng(5)
        base = some_base(self.SCHEMA, rng)
        far = {**base, "n.running_mean": np.full(4, 2e5, np.float32), "n.running_var": np.full(4, 3e11, np.float32)}
        mask = Mask.full(self.SCHEMA)
        given_ = [as_input(Client(weights=far, examples=n), self.SCHEMA, mask) for n in (10, 20)]
        folded = fedavg().fold(self.SCHEMA, base, mask, given_)
        assert_close(folded.arrays["n.running_var"], far["n.running_var"], rtol=1e-6)

    def test_the_furthest_counter_wins(self) -> None:
        rng = np.random.default_rng(6)
        mask = Mask.full(self.SCHEMA)
        base = some_base(self.SCHEMA, rng)
        clients = some_clients(self.SCHEMA, base, mask, rng, 3)
        folded = fedavg().fold(self.SCHEMA, base, mask, [as_input(c, self.SCHEMA, mask) for c in clients])
        counted = folded.arrays["n.num_batches_tracked"]
        assert counted.dtype == np.int64
        assert counted.shape == ()
        assert counted == base["n.num_batches_tracked"] + 2


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_every_float_dtype_comes_back_as_itself(dtype: str) -> None:
    schema = Schema(tensors=(TensorSpec(name="w", shape=(2, 2), dtype=dtype),))

    def stored(*values: float) -> Array:
        array = np.array(values).reshape(2, 2)
        if dtype == "bfloat16":
            return (array.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return array.astype(dtype)

    given_ = [Client(weights={"w": stored(1, 2, -3, v)}, examples=1) for v in (0.0, 1.0)]
    mask = Mask.full(schema)
    folded = fedavg().fold(schema, {"w": stored(0, 0, 0, 0)}, mask, [as_input(c, schema, mask) for c in given_])
    assert folded.arrays["w"].dtype == schema["w"].numpy_dtype
    assert folded.arrays["w"].tolist() == stored(1, 2, -3, 0.5).tolist()


class TestBadInput:
    MASK = Mask.full(SCHEMA)

    def given(self, **changed: object) -> tuple[dict[str, Array], FoldInput]:
        rng = np.random.default_rng(7)
        base = some_base(SCHEMA, rng)
        client = some_clients(SCHEMA, base, self.MASK, rng, 1)[0]
        return base, as_input(replace(client, weights={**client.weights, **changed}), SCHEMA, self.MASK)  # type: ignore[dict-item]  # arrays

    @pytest.mark.parametrize("name", ["a.weight", "a.bias"])
    @pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
    def test_party_and_tensor_are_named(self, name: str, value: float) -> None:
        bad = np.full(SCHEMA[name].shape, 0.1, np.float32)
        bad.reshape(-1)[-1] = value
        base, update = self.given(**{name: bad})
        for act in (
            lambda: fedavg().check(SCHEMA, base, self.MASK, update),
            lambda: fedavg().fold(SCHEMA, base, self.MASK, [update]),
        ):
            with pytest.raises(UpdateError, match=rf"client 0.*'{name}'"):
                act()

    def test_what_passes_the_check_can_be_folded(self) -> None:
        """A mean that is far away passes on its own, but its square would not fit beside the variance."""
        schema = small_schema(statistics=True)
        mask = Mask.full(schema)
        base = some_base(schema, np.random.default_rng(10))
        far = Client(weights={**base, "n.running_mean": np.full(4, 1e20, np.float32)}, examples=1)
        for act in (
            lambda: fedavg().check(schema, base, mask, as_input(far, schema, mask)),
            lambda: fedavg().fold(schema, base, mask, [as_input(far, schema, mask)]),
        ):
            with pytest.raises(UpdateError, match=r"'n\.running_var' moved too far"):
                act()

    def test_good_updates_pass_the_check(self) -> None:
        base, update = self.given()
        fedavg().check(SCHEMA, base, self.MASK, update)
        folded = fedavg().fold(SCHEMA, base, self.MASK, [update])
        assert folded.counted == (update.party,)
        assert all(np.isfinite(array).all() for array in folded.arrays.values())

    def test_the_wrong_number_of_values_is_refused(self) -> None:
        base, update = self.given(**{"a.bias": np.zeros(3, np.float32)})
        with pytest.raises(UpdateError, match=r"wrong number of values in 'a\.bias'"):
            fedavg().check(SCHEMA, base, self.MASK, update)

    def test_tensors_come_in_the_order_of_the_schema(self) -> None:
        base, update = self.given()

        def backwards() -> Iterator[tuple[TensorSpec, Packed]]:
            return iter(list(update.open())[::-1])

        for opened in (backwards, lambda: iter(list(update.open())[:1])):
            with pytest.raises(UpdateError, match="out of order"):
                fedavg().fold(SCHEMA, base, self.MASK, [replace(update, open=opened)])

    def test_nothing_is_no_average(self) -> None:
        base, _ = self.given()
        with pytest.raises(LocalError, match="nothing to fold"):
            fedavg().fold(SCHEMA, base, self.MASK, [])

    def test_an_update_without_examples_has_no_weight(self) -> None:
        _, update = self.given()
        with pytest.raises(UpdateError, match="0 examples"):
            replace(update, examples=0)

    def test_a_rate_is_positive(self) -> None:
        with pytest.raises(LocalError, match="rate"):
            fedavg(rate=0.0)

    def test_a_model_that_leaves_its_dtype_is_refused(self) -> None:
        schema = Schema(tensors=(TensorSpec(name="w", shape=(1, 1), dtype="float16"),))
        base = {"w": np.array([[60000]], np.float16)}
        client = Client(weights={"w": np.array([[65000]], np.float16)}, examples=1)
        mask = Mask.full(schema)
        with pytest.raises(UpdateError, match="leaves the range of float16"):
            fedavg(rate=2.0).fold(schema, base, mask, [as_input(client, schema, mask)])


def test_the_base_is_left_alone() -> None:
    rng = np.random.default_rng(8)
    mask = some_mask(SCHEMA, rng)
    base = some_base(SCHEMA, rng, mask)
    kept = {n: a.copy() for n, a in base.items()}
    folded = fedavg().fold(
        SCHEMA, base, mask, [as_input(c, SCHEMA, mask) for c in some_clients(SCHEMA, base, mask, rng, 2)]
    )
    for array in folded.arrays.values():
        array.fill(7)
    assert same_bits(base, kept)


def test_updates_of_the_codec_fold_as_they_come() -> None:
    rng = np.random.default_rng(9)
    schema = small_schema(statistics=True)
    mask = some_mask(schema, rng)
    base = some_base(schema, rng, mask)
    clients = some_clients(schema, base, mask, rng, 3)
    inputs = []
    for client in clients:
        frame = encode_update(client.weights, schema=schema, mask=mask, base=base, content=Content.WEIGHTS)
        reader = UpdateReader(frame, schema=schema, mask=mask, base=base)
        inputs.append(FoldInput(examples=client.examples, content=reader.content, open=partial(iter, reader)))
    direct = fedavg().fold(schema, base, mask, [as_input(c, schema, mask) for c in clients])
    assert same_bits(fedavg().fold(schema, base, mask, inputs).arrays, direct.arrays)
    assert {t.role for t in schema} == set(Role)
