"""Error feedback: nothing is lost, whatever is sent, refused, masked or forgotten on purpose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedprune.codec import Content, UpdateReader
from fedprune.errors import LocalError, UpdateError
from fedprune.feedback import Compressed, Memory, check_schema, compress, is_compressed
from fedprune.mask import Mask
from fedprune.tensor import Role, Schema, TensorSpec, Version
from fedprune.work import UploadPlan

SCHEMA = Schema(
    tensors=(
        TensorSpec(name="hidden", shape=(12, 10)),
        TensorSpec(name="bias", shape=(12,), role=Role.FREE),
        TensorSpec(name="last", shape=(3, 12), role=Role.FREE),
        TensorSpec(name="mean", shape=(12,), role=Role.BUFFER),
        TensorSpec(name="seen", shape=(), dtype="int64", role=Role.COUNTER),
    )
)
WEIGHTS = ("hidden", "bias", "last")
FULL = Mask.full(SCHEMA)

Arrays = dict[str, NDArray[Any]]


def change(rng: np.random.Generator, mask: Mask = FULL) -> Arrays:
    arrays: Arrays = {t.name: rng.normal(size=t.shape).astype(np.float32) for t in SCHEMA if t.name != "seen"}
    arrays["seen"] = np.array(7)
    mask.apply(arrays)
    return arrays


def thin(version: int = 1) -> Mask:
    alive = np.zeros((12, 10), np.bool_)
    alive[::2, ::3] = True
    return Mask(schema=SCHEMA, version=version, alive={"hidden": alive})


def send(memory: Memory, tensors: Arrays, plan: UploadPlan, mask: Mask = FULL) -> Compressed:
    return compress(tensors, memory, schema=SCHEMA, mask=mask, plan=plan, version=Version(mask=mask.version), party="c")


plans = st.builds(
    UploadPlan,
    values=st.sampled_from(["lossless", "fp16", "int8", "int4", "ternary"]),
    top=st.sampled_from([0.01, 0.04, 0.3, 1.0]),
    seed=st.integers(0, 1 << 32),
    error_feedback=st.just(True),
)


@settings(deadline=None, max_examples=40)
@given(plan=plans, seed=st.integers(0, 1000), refused=st.sets(st.integers(0, 9)))
def test_what_was_sent_and_what_is_left_is_what_was_wanted(plan: UploadPlan, seed: int, refused: set[int]) -> None:
    rng = np.random.default_rng(seed)
    memory = Memory()
    wanted = {name: np.zeros(SCHEMA[name].shape) for name in WEIGHTS}
    arrived = {name: np.zeros(SCHEMA[name].shape) for name in WEIGHTS}
    for turn in range(10):
        step = change(rng)
        update = send(memory, step, plan)
        for name in WEIGHTS:
            wanted[name] += step[name]
            arrived[name] += 0 if turn in refused else update.sent[name]
        memory = update.unsent if turn in refused else update.after
    for name in WEIGHTS:
        left = memory.residual[name]
        np.testing.assert_allclose(arrived[name] + left, wanted[name], atol=2e-5)


def test_a_mask_change_takes_exactly_the_norm_that_it_reports() -> None:
    update = send(
        Memory(), change(np.random.default_rng(1)), UploadPlan(values="ternary", top=0.1, error_feedback=True)
    )
    memory = update.after.copy()
    dropped = memory.mask(thin())
    dead = ~thin().alive["hidden"]
    assert dropped == pytest.approx(float(np.linalg.norm(update.after.residual["hidden"][dead])))
    assert not memory.residual["hidden"][dead].any()
    assert memory.norm**2 + dropped**2 == pytest.approx(update.after.norm**2)


def test_only_the_largest_of_each_matrix_travel_and_never_none() -> None:
    plan = UploadPlan(values="fp16", top=0.05, error_feedback=True)
    step = change(np.random.default_rng(2))
    sent = send(Memory(), step, plan).sent
    assert np.count_nonzero(sent["hidden"]) == 6
    assert np.count_nonzero(sent["last"]) == 2
    assert np.count_nonzero(sent["bias"]) == 1, "a tenth of a bias, however small the share of matrices"
    kept = np.abs(step["hidden"])[sent["hidden"] != 0].min()
    assert kept >= np.abs(step["hidden"])[sent["hidden"] == 0].max()
    least = send(Memory(), step, UploadPlan(values="fp16", top=1e-6, error_feedback=True)).sent
    assert np.count_nonzero(least["last"]) == 1


def test_ternary_with_feedback_sends_the_sign_of_each_chosen_one_times_their_mean() -> None:
    step = change(np.random.default_rng(2))
    sent = send(Memory(), step, UploadPlan(values="ternary", top=0.05, error_feedback=True)).sent["hidden"]
    chosen = np.abs(step["hidden"]) >= np.sort(np.abs(step["hidden"]).reshape(-1))[-6]
    assert np.array_equal(sent != 0, chosen), "none of the chosen is rounded away again"
    np.testing.assert_allclose(
        sent[chosen], np.sign(step["hidden"][chosen]) * np.abs(step["hidden"][chosen]).mean(), rtol=1e-6
    )


def test_ternary_without_feedback_is_right_on_average() -> None:
    step = change(np.random.default_rng(2))
    plans = [UploadPlan(values="ternary", top=0.05, seed=seed) for seed in range(400)]
    mean = np.mean([send(Memory(), step, plan).sent["hidden"] for plan in plans], axis=0)
    chosen = mean != 0
    np.testing.assert_allclose(mean[chosen], step["hidden"][chosen], rtol=0.2)


def test_ties_are_broken_by_position() -> None:
    step = change(np.random.default_rng(3))
    step["hidden"][:] = 1.0
    sent = send(Memory(), step, UploadPlan(values="fp16", top=0.05, error_feedback=True)).sent
    assert np.flatnonzero(sent["hidden"]).tolist() == [0, 1, 2, 3, 4, 5]


def test_buffers_and_counters_are_values_and_exact() -> None:
    step = change(np.random.default_rng(4))
    update = send(Memory(), step, UploadPlan(values="ternary", top=0.1, error_feedback=True))
    assert np.array_equal(update.sent["mean"], step["mean"])
    assert update.sent["seen"] == 7
    assert UpdateReader(update.frame, schema=SCHEMA, mask=FULL).content is Content.DELTA


def test_without_feedback_nothing_is_remembered() -> None:
    update = send(Memory(), change(np.random.default_rng(5)), UploadPlan(values="ternary", top=0.1))
    assert update.after.residual == update.unsent.residual == {}


def test_momentum_is_cleared_where_something_was_sent() -> None:
    plan = UploadPlan(values="fp16", top=0.05, error_feedback=True, momentum=0.9)
    first = send(Memory(), change(np.random.default_rng(6)), plan)
    went = first.sent["hidden"] != 0
    assert not first.after.velocity["hidden"][went].any()
    assert first.after.velocity["hidden"][~went].all()
    step = change(np.random.default_rng(7))
    second = send(first.after, step, plan)
    velocity = np.float32(0.9) * first.after.velocity["hidden"] + step["hidden"]
    wanted = first.after.residual["hidden"] + velocity
    went = second.sent["hidden"] != 0
    np.testing.assert_allclose(second.sent["hidden"][went], wanted[went], rtol=1e-3)


def test_clipping_bounds_the_change_before_compression() -> None:
    plan = UploadPlan(values="fp16", error_feedback=True, clip_norm=0.5)
    update = send(Memory(), change(np.random.default_rng(8)), plan)
    norm = np.sqrt(sum(float(np.square(update.sent[n], dtype=np.float64).sum()) for n in WEIGHTS))
    assert norm == pytest.approx(0.5, rel=1e-3)


def test_a_change_that_is_not_finite_is_refused_by_name() -> None:
    step = change(np.random.default_rng(9))
    step["last"][0, 0] = np.nan
    with pytest.raises(UpdateError, match="last"):
        send(Memory(), step, UploadPlan(values="int8", error_feedback=True))


def test_an_unchanged_model_costs_little_and_does_no_harm() -> None:
    still: Arrays = {name: np.zeros_like(array) for name, array in change(np.random.default_rng(0)).items()}
    update = send(Memory(), still, UploadPlan(values="ternary", top=0.04, error_feedback=True))
    assert not any(update.sent[name].any() for name in WEIGHTS)
    assert len(update.frame) < 200


def test_a_mask_does_not_lower_how_many_weights_travel() -> None:
    """`top` is a share of the whole tensor: what pruning leaves of it learns all the faster."""
    mask = thin()
    plan = UploadPlan(values="fp16", top=0.1, error_feedback=True)
    sent = send(Memory(), change(np.random.default_rng(10), mask), plan, mask).sent
    assert np.count_nonzero(sent["hidden"]) == round(0.1 * mask.alive["hidden"].size)
    assert not sent["hidden"][~mask.alive["hidden"]].any()


@pytest.mark.parametrize("values", ["fp16", "ternary"])
def test_under_a_thin_mask_all_that_is_alive_travels_and_no_more(values: str) -> None:
    mask = thin()
    plan = UploadPlan(values=values, top=0.5, error_feedback=True)
    update = send(Memory(), change(np.random.default_rng(10), mask), plan, mask)
    assert np.array_equal(update.sent["hidden"] != 0, mask.alive["hidden"])
    assert not update.after.residual["hidden"][~mask.alive["hidden"]].any()


@pytest.mark.parametrize("values", ["fp16", "int4", "ternary"])
def test_what_is_named_exact_travels_whole_and_to_the_bit(values: str) -> None:
    plan = UploadPlan(values=values, top=0.05, error_feedback=True, exact=("las*",))
    step = change(np.random.default_rng(12))
    update = send(Memory(), step, plan)
    assert np.array_equal(update.sent["last"], step["last"])
    assert not update.after.residual["last"].any()
    assert np.count_nonzero(update.sent["hidden"]) == 6


def test_the_same_seed_rounds_the_same_way() -> None:
    step = change(np.random.default_rng(11))
    frames = {send(Memory(), step, UploadPlan(values="int4", seed=s, error_feedback=True)).frame for s in (1, 1, 2)}
    assert len(frames) == 2


def test_an_absence_makes_a_residual_smaller() -> None:
    memory = Memory(residual={"bias": np.ones(12, np.float32)})
    memory.decay(0)
    assert memory.residual["bias"][0] == 1.0
    memory.decay(2)
    assert memory.residual["bias"][0] == pytest.approx(0.81)


def test_only_float32_weights_can_be_compressed() -> None:
    half = Schema(tensors=(TensorSpec(name="w", shape=(4, 4), dtype="float16"),))
    check_schema(UploadPlan(), half)
    with pytest.raises(LocalError, match="'w'"):
        check_schema(UploadPlan(values="int8"), half)
    assert not is_compressed(UploadPlan())
    assert is_compressed(UploadPlan(top=0.5))
