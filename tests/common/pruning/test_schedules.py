"""When the mask changes: the cubic law at its ends, and plans that no run can hold."""

from itertools import pairwise

import pytest

from fedprune.errors import LocalError
from fedprune.pruning import PruningPlan, cubic, density_at, steps


@pytest.mark.parametrize(("first", "last"), [(1.0, 0.1), (0.7, 0.3), (1.0, 0.02), (0.9, 0.1)])
def test_cubic_is_exact_at_both_ends_and_falls_between(first: float, last: float) -> None:
    line = [cubic(k / 20, first, last) for k in range(21)]
    assert line[0] == first
    assert line[-1] == last
    drops = [a - b for a, b in pairwise(line)]
    assert min(drops) > 0
    assert drops[0] == max(drops), "most is pruned while most is there"


def test_cubic_in_sparsities_is_equation_1_of_zhu_and_gupta() -> None:
    s_i, s_f, n = 0.0, 0.9, 4
    for k in range(n + 1):
        s_t = s_f + (s_i - s_f) * (1 - k / n) ** 3
        assert 1 - cubic(k / n, 1 - s_i, 1 - s_f) == pytest.approx(s_t, abs=1e-12)


def test_steps_of_the_demo() -> None:
    plan = PruningPlan(density=0.1)
    assert [s.round for s in steps(plan, 40)] == [9, 14, 19, 24]
    assert steps(plan, 40)[-1].density == 0.1
    assert density_at(4, 40, plan) == 1.0
    assert density_at(8, 40, plan) == 1.0
    assert density_at(9, 40, plan) == density_at(13, 40, plan) == cubic(0.25, 1.0, 0.1)
    assert density_at(40, 40, plan) == 0.1


def test_a_share_that_means_a_whole_round_gives_it() -> None:
    assert int(0.29 * 100) == 28  # what makes the naive floor wrong
    assert steps(PruningPlan(density=0.5, start=0.0, end=0.29, every=29), 100)[-1].round == 29


def test_density_one_never_steps() -> None:
    assert steps(PruningPlan(), 3) == ()
    assert density_at(3, 3, PruningPlan()) == 1.0


def test_steady_state_must_remain() -> None:
    plan = PruningPlan(density=0.1)
    # 24 rounds: last step after round 12, carried down in 13, steady from 14 to 24.
    assert steps(plan, 24)[-1].round == 12
    with pytest.raises(LocalError, match="too few rounds are left after the last pruning step"):
        steps(plan, 20)
    assert steps(PruningPlan(density=0.1, recovery_rounds=7), 20)[-1].round == 12


def test_a_window_without_a_step_is_refused() -> None:
    with pytest.raises(LocalError, match="no pruning step fits") as caught:
        steps(PruningPlan(density=0.1, every=21), 40)
    assert "20 rounds" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"density": 0.0}, "density"),
        ({"density": 1.5}, "density"),
        ({"density": float("nan")}, "density"),
        ({"method": "magic"}, "method"),
        ({"schedule": "square"}, "schedule"),
        ({"start": -0.1}, "start"),
        ({"start": 0.6, "end": 0.6}, "end"),
        ({"end": 1.1}, "end"),
        ({"every": 0}, "every"),
        ({"recovery_rounds": -1}, "recovery_rounds"),
    ],
)
def test_values_out_of_range_name_their_key(settings: dict[str, float | str], key: str) -> None:
    with pytest.raises(LocalError, match=rf"pruning\.{key} is out of range"):
        PruningPlan(**settings)  # type: ignore[arg-type]  # wrong on purpose
