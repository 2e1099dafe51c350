"""A run file as the values that the rooms work with: the same file, the same values, and no seed used twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fedprune.config import RunConfig
from fedprune.tensor import Schema, TensorSpec
from fedprune_server import plan

names = st.lists(st.text(max_size=5) | st.integers(0, 99), max_size=3)


def config(*overrides: str) -> RunConfig:
    return RunConfig.loads("", overrides=overrides)


@given(st.integers(0, 1 << 40), names)
def test_a_seed_fits_the_wire_and_is_the_same_again(seed: int, uses: list[str | int]) -> None:
    found = plan.derive_seed(seed, *uses)
    assert 0 <= found < 1 << 63
    assert found == plan.derive_seed(seed, *uses)


def test_no_two_uses_share_a_seed() -> None:
    one = config()
    batches = {plan.train_work(one, round_=r, shard=s).seed for r in range(1, 30) for s in range(30)}
    rounding = {plan.upload_plan(one, round_=r, shard=s).seed for r in range(1, 30) for s in range(30)}
    broadcasts = {plan.broadcast_plan(one, round_=r).seed for r in range(1, 30)}
    assert len(batches | rounding | broadcasts) == 29 * 30 * 2 + 29
    assert plan.train_work(config("run.seed=2"), round_=1, shard=0).seed not in batches


def test_rules_are_those_of_the_file() -> None:
    rules = plan.rules(
        config("run.rounds=7", "clients.share=0.25", "clients.quorum=0.75", "clients.on_miss='extend'"),
        clients_evaluate=True,
    )
    assert (rules.rounds, rules.share, rules.quorum, rules.on_miss, rules.clients_evaluate) == (
        7,
        0.25,
        0.75,
        "extend",
        True,
    )


def test_training_is_that_of_the_file() -> None:
    work = plan.train_work(
        config("training.epochs=3", "training.batch_size=8", "training.proximal=0.5"), round_=1, shard=0
    )
    assert (work.epochs, work.batch_size, work.proximal, work.optimizer) == (3, 8, 0.5, "sgd")


def test_evaluation_does_not_crawl_through_small_batches() -> None:
    assert plan.evaluate_work(config("training.batch_size=2")).batch_size == 256
    assert plan.evaluate_work(config("training.batch_size=1000")).batch_size == 1000


def test_the_warm_up_falls_from_all_to_the_share() -> None:
    warm = config("run.rounds=10", "compression.top=0.01", "compression.warmup=0.5")
    shares = [plan.upload_plan(warm, round_=r, shard=0).top for r in range(1, 11)]
    assert shares[0] == 1.0
    assert shares == sorted(shares, reverse=True)
    assert set(shares[5:]) == {0.01}


def test_stages_change_the_values_and_the_share_both_ways() -> None:
    staged = config(
        "run.rounds=10", 'compression.up="int8"', 'compression.stages=[[0.2, "int4", 0.5], [0.5, "ternary", 0.04]]'
    )
    there = [plan.upload_plan(plan.chosen(staged, None, round_=r), round_=r, shard=0) for r in range(1, 11)]
    back = [plan.broadcast_plan(plan.chosen(staged, None, round_=r), round_=r) for r in range(1, 11)]
    assert [(p.values, p.top) for p in there] == [("int8", 1.0)] * 2 + [("int4", 0.5)] * 3 + [("ternary", 0.04)] * 5
    assert [(p.values, p.top) for p in back] == [("lossless", 1.0)] * 2 + [("int4", 0.5)] * 3 + [("ternary", 0.04)] * 5


def test_every_plan_is_known_before_the_run() -> None:
    schema = Schema(tensors=(TensorSpec(name="w", shape=(4, 4)),))
    staged = config('compression.stages=[[0.2, "int4", 0.5]]')
    assert [c.compression.up for c in plan.every_plan(staged, schema)] == ["lossless", "int4"]
    assert [c.compression.up for c in plan.every_plan(config('compression.plan="auto"'), schema)] == ["ternary"]


def test_a_lossless_broadcast_leaves_nothing_out() -> None:
    assert plan.broadcast_plan(config("compression.top=0.01"), round_=9).top == 1.0
