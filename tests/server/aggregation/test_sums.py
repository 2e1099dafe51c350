"""Updates that are summed as they come make the model, to the bit, that folding them side by side makes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprune.errors import UpdateError
from fedprune.mask import Mask
from fedprune_server.aggregation import RULES, Options, aggregator, fedavg
from fedprune_server.aggregation.sums import Sums, begin

from .reference import as_input, same_bits, small_schema, some_base, some_clients, some_mask

SCHEMA = small_schema(statistics=True)


@given(st.integers(0, 1 << 32), st.integers(1, 6), st.booleans(), st.sampled_from(["fedavg", "fedadam", "fedavgm"]))
@settings(max_examples=40)
def test_the_sum_is_the_fold(seed: int, count: int, own_masks: bool, rule: str) -> None:
    rng = np.random.default_rng(seed)
    mask = some_mask(SCHEMA, rng)
    base = some_base(SCHEMA, rng, mask)
    updates = [as_input(c, SCHEMA, mask) for c in some_clients(SCHEMA, base, mask, rng, count, own_masks=own_masks)]
    made = aggregator(rule, Options(damping=0.5 if own_masks else 0.0))
    state = made.fold(SCHEMA, base, mask, updates).state
    folded = made.fold(SCHEMA, base, mask, updates, state)
    sums = begin(made, SCHEMA, base, mask)
    assert sums is not None
    for number in rng.permutation(count):
        sums.add(updates[number])
    summed = sums.finish([update.party for update in updates], state)
    assert same_bits(summed.arrays, folded.arrays)
    assert same_bits(summed.state, folded.state)
    assert (summed.counted, summed.uncovered) == (folded.counted, folded.uncovered)


def test_threads_may_add_at_the_same_time() -> None:
    rng = np.random.default_rng(3)
    mask = Mask.full(SCHEMA)
    base = some_base(SCHEMA, rng, mask)
    updates = [as_input(c, SCHEMA, mask) for c in some_clients(SCHEMA, base, mask, rng, 24)]
    sums = begin(fedavg(), SCHEMA, base, mask)
    assert sums is not None
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(sums.add, updates))
    assert same_bits(sums.finish([]).arrays, fedavg().fold(SCHEMA, base, mask, updates).arrays)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_what_cannot_be_folded_is_refused(value: float) -> None:
    rng = np.random.default_rng(4)
    mask = Mask.full(SCHEMA)
    base = some_base(SCHEMA, rng, mask)
    (client,) = some_clients(SCHEMA, base, mask, rng, 1)
    name = SCHEMA.prunable[0].name
    client.weights[name].reshape(-1)[0] = value
    sums = begin(fedavg(), SCHEMA, base, mask)
    assert sums is not None
    with pytest.raises(UpdateError, match=name):
        sums.add(as_input(client, SCHEMA, mask))


def test_rules_that_compare_updates_are_not_summed() -> None:
    base = some_base(SCHEMA, np.random.default_rng(5))
    mask = Mask.full(SCHEMA)
    summed = {rule for rule in RULES if isinstance(begin(aggregator(rule), SCHEMA, base, mask), Sums)}
    assert summed == {"fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad"}
    assert begin(aggregator("fedavg", Options(clip_norm=1.0)), SCHEMA, base, mask) is None
