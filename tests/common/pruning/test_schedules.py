"""When the mask changes: laws exact at their ends, steps of every schedule, and windows that hold none."""

from itertools import pairwise

import pytest

from fedprune.errors import LocalError
from fedprune.pruning import PruningPlan, cubic, density_at, steps
from fedprune.pruning.schedules import exchange_rounds, last_exchange, linear


@pytest.mark.parametrize("law", [cubic, linear])
@pytest.mark.parametrize(("first", "last"), [(1.0, 0.1), (0.7, 0.3), (1.0, 0.02), (0.9, 0.1)])
def test_laws_are_exact_at_both_ends_and_fall_between(law: object, first: float, last: float) -> None:
    assert callable(law)
    line = [law(k / 20, first, last) for k in range(21)]
    assert line[0] == first
    assert line[-1] == law(1.5, first, last) == last
    drops = [a - b for a, b in pairwise(line)]
    assert min(drops) > 0
    if law is cubic:
        assert all(a > b for a, b in pairwise(drops)), "most is pruned while most is there"
    else:
        assert drops == pytest.approx([drops[0]] * 20)


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
    assert exchange_rounds(PruningPlan(schedule="regrow"), 30) == ()
    assert density_at(3, 3, PruningPlan()) == 1.0


def rounds_and_densities(plan: PruningPlan, rounds: int) -> list[tuple[int, float]]:
    return [(step.round, step.density) for step in steps(plan, rounds)]


def test_steps_of_the_other_schedules() -> None:
    assert rounds_and_densities(PruningPlan(density=0.2, schedule="init"), 20) == [(0, 0.2)]
    assert rounds_and_densities(PruningPlan(density=0.2, schedule="once", start=0.3), 20) == [(6, 0.2)]
    assert rounds_and_densities(PruningPlan(density=0.2, schedule="once", start=0.0), 20) == [(1, 0.2)]
    staged = PruningPlan(density=0.1, schedule="staged", stages=((0.0, 0.6), (0.2, 0.3), (0.4, 0.1)))
    assert rounds_and_densities(staged, 20) == [(0, 0.6), (4, 0.3), (8, 0.1)]
    even = PruningPlan(density=0.2, schedule="linear", start=0.0, end=0.4, every=2)
    assert [step.round for step in steps(even, 20)] == [2, 4, 6, 8]
    assert [step.density for step in steps(even, 20)] == pytest.approx([0.8, 0.6, 0.4, 0.2])


def test_regrowth_starts_sparse_and_exchanges_until_its_end() -> None:
    plan = PruningPlan(density=0.2, schedule="regrow", every=5, end=0.6)
    assert rounds_and_densities(plan, 40) == [(0, 0.2)]
    assert exchange_rounds(plan, 40) == (5, 10, 15, 20)
    assert last_exchange(plan, 40) == 24


def test_stages_that_fall_into_one_round_are_refused() -> None:
    plan = PruningPlan(density=0.1, schedule="staged", stages=((0.2, 0.3), (0.21, 0.1)))
    with pytest.raises(LocalError, match="two stages fall into one round"):
        steps(plan, 20)


def test_steady_state_must_remain() -> None:
    plan = PruningPlan(density=0.1)
    # 24 rounds: last step after round 12, carried down in 13, steady from 14 to 24.
    assert steps(plan, 24)[-1].round == 12
    with pytest.raises(LocalError, match="too few rounds are left after the last change"):
        steps(plan, 20)
    assert steps(PruningPlan(density=0.1, recovery_rounds=7), 20)[-1].round == 12


def test_exchanges_count_as_changes() -> None:
    plan = PruningPlan(density=0.1, schedule="regrow", every=5, end=0.9)
    with pytest.raises(LocalError, match="last change after round 35 of 40: 4 rounds"):
        steps(plan, 40)


def test_a_window_without_a_step_is_refused() -> None:
    with pytest.raises(LocalError, match="no pruning step fits") as caught:
        steps(PruningPlan(density=0.1, every=21), 40)
    assert "20 rounds" in str(caught.value)
