"""The ladder of plans: down it when links are slow, up it when accuracy suffers, and never to and fro."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprune.config import RunConfig
from fedprune.errors import ConfigError
from fedprune.report import RoundReport
from fedprune.tensor import Schema, TensorSpec
from fedprune.traffic import Traffic
from fedprune_server import plan
from fedprune_server.autoplan import FINE_TO_COARSE, LADDER, MEMORY_ROUNDS, SETTLE_ROUNDS, Bounds, decide

WEIGHTS = 1_000_000
BOUNDS = Bounds(coarsest="ternary", least_top=0.01, tolerance=0.02, weights=WEIGHTS)
FAST, SLOW = 1e9, 1e4
NAMES = [str(rung) for rung in LADDER]


def row(number: int, chosen: str, *, rate: float | None = FAST, accuracy: float | None = 0.9) -> RoundReport:
    return RoundReport(
        round=number,
        accuracy=accuracy,
        density=1.0,
        density_of_all=1.0,
        seconds=2.0,
        payload=Traffic(),
        dense_equivalent=Traffic(),
        work_seconds=1.0,
        plan=chosen,
        link_bytes_per_s=rate,
    )


def course(rounds: int, bounds: Bounds = BOUNDS, *, rate: float = FAST, accuracy: float = 0.9) -> list[RoundReport]:
    """A run whose links and accuracy stay the same."""
    rows: list[RoundReport] = []
    for number in range(1, rounds + 1):
        rows.append(row(number, str(decide(rows, bounds).rung), rate=rate, accuracy=accuracy))
    return rows


def test_the_ladder_goes_from_fine_to_coarse() -> None:
    costs = [rung.bytes_a_weight for rung in LADDER]
    assert costs == sorted(costs, reverse=True)
    assert len(set(NAMES)) == len(NAMES)
    assert {rung.values for rung in LADDER} <= set(FINE_TO_COARSE)


def test_it_begins_where_accuracy_is_safe() -> None:
    first = decide([], BOUNDS)
    assert str(first.rung) == "int8"
    assert first.reason == "nothing is measured yet"


def test_fast_links_get_the_finest_plan_step_by_step() -> None:
    rows = course(12)
    assert [r.plan for r in rows] == ["int8"] * 3 + ["fp16"] * 3 + ["lossless"] * 6


def test_slow_links_get_the_coarsest_plan_step_by_step_and_the_reason_says_why() -> None:
    rows = course(20, rate=SLOW)
    assert list(dict.fromkeys(r.plan for r in rows)) == NAMES[2:]
    assert rows[-1].plan == "ternary top 0.01"
    assert "the slowest link moves 10 kB/s: int8 takes" in decide(rows[:3], BOUNDS).reason


def test_a_link_in_between_is_suited_and_left_alone() -> None:
    # A weight at 0.073 bytes there and back in 0.1 s: 1.46 MB/s is just enough.
    rows = course(40, rate=2e6)
    assert {r.plan for r in rows[-20:]} == {"ternary top 0.1"}
    assert decide(rows, BOUNDS).reason.endswith("which suits it")


def test_a_plan_stays_until_its_effect_shows() -> None:
    rows = course(SETTLE_ROUNDS - 1, rate=SLOW)
    assert str(decide(rows, BOUNDS).rung) == "int8"


def test_accuracy_has_the_last_word_and_is_not_asked_again_at_once() -> None:
    """A task that cannot stand ternary: it is left, avoided for a while, and tried again later."""
    rows: list[RoundReport] = []
    for number in range(1, 41):
        choice = decide(rows, BOUNDS)
        accuracy = 0.8 if choice.rung.values == "ternary" else 0.9
        rows.append(row(number, str(choice.rung), rate=SLOW, accuracy=accuracy))
    plans = [r.plan for r in rows]
    back = next(n for n in range(1, len(plans)) if plans[n - 1] == "ternary top 0.1" and plans[n] == "int8 top 0.25")
    assert "accuracy is 10.0 points behind its best" in decide(rows[:back], BOUNDS).reason
    assert set(plans[back : back + MEMORY_ROUNDS - 1]) == {"int8 top 0.25"}
    assert "ternary top 0.01" not in plans


def test_within_the_tolerance_accuracy_says_nothing() -> None:
    rows = [row(n, "int8", rate=None, accuracy=0.9 - 0.001 * n) for n in range(1, 10)]
    assert decide(rows, BOUNDS).reason == "no link is measured"


def test_one_short_transfer_does_not_make_a_link_slow() -> None:
    rows = course(12)
    rows[-1] = replace(rows[-1], link_bytes_per_s=SLOW)
    assert decide(rows, BOUNDS).rung.values == "lossless"


@given(
    coarsest=st.sampled_from(FINE_TO_COARSE),
    least_top=st.floats(0.001, 1.0),
    rates=st.lists(st.floats(1.0, 1e10), max_size=30),
    scores=st.lists(st.floats(0, 1), min_size=30, max_size=30),
)
def test_no_choice_leaves_the_bounds_or_skips_a_rung(
    coarsest: str, least_top: float, rates: list[float], scores: list[float]
) -> None:
    bounds = Bounds(coarsest=coarsest, least_top=least_top, tolerance=0.02, weights=WEIGHTS)
    names = [str(rung) for rung in bounds.ladder]
    rows: list[RoundReport] = []
    for number, (rate, score) in enumerate(zip(rates, scores, strict=False), start=1):
        choice = decide(rows, bounds)
        assert choice == decide(rows, bounds)
        assert FINE_TO_COARSE.index(choice.rung.values) <= FINE_TO_COARSE.index(coarsest)
        assert choice.rung.top >= least_top
        if rows:
            assert abs(names.index(str(choice.rung)) - names.index(rows[-1].plan)) <= 1
        rows.append(row(number, str(choice.rung), rate=rate, accuracy=score))


def test_a_choice_becomes_the_plans_of_both_ways() -> None:
    config = RunConfig.loads("", overrides=['compression.plan="auto"', "compression.least_top=0.04"])
    schema = Schema(tensors=(TensorSpec(name="w", shape=(100, 10)),))
    (coarsest,) = plan.every_plan(config, schema)
    up, down = plan.upload_plan(coarsest, round_=1, shard=0), plan.broadcast_plan(coarsest, round_=1)
    assert (up.values, up.top, down.values, down.top) == ("ternary", 0.04, "ternary", 0.04)
    fixed = RunConfig.loads("")
    assert plan.bounds(fixed, schema) is None
    assert plan.every_plan(fixed, schema) == (fixed,)


def test_an_automatic_plan_is_bounded_not_set() -> None:
    with pytest.raises(ConfigError, match="bound it by coarsest and least_top"):
        RunConfig.loads("", overrides=['compression.plan="auto"', "compression.top=0.5"])
