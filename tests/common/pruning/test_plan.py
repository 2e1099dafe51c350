"""Plans that cannot be, or that say two things at once, are refused before a run starts."""

import pytest

from fedprune.errors import LocalError
from fedprune.pruning import Floors, PruningPlan, check_model
from fedprune.pruning.plan import keep_count
from fedprune.pruning.scores import FROM_CLIENTS
from fedprune.tensor import Role, Schema, TensorSpec

MODEL = Schema(
    tensors=(
        TensorSpec(name="conv.weight", shape=(16, 8, 3, 3)),
        TensorSpec(name="fc.weight", shape=(40, 30)),
        TensorSpec(name="head.weight", shape=(10, 40), role=Role.FREE),
    )
)


def test_counts_round_to_the_nearest_halves_up() -> None:
    assert [keep_count(d, 10) for d in (0.0, 0.04, 0.05, 0.14, 0.16, 1.0)] == [0, 0, 1, 1, 2, 10]


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"density": 0.0}, "density"),
        ({"density": 1.5}, "density"),
        ({"density": float("nan")}, "density"),
        ({"method": "magic"}, "method"),
        ({"schedule": "square"}, "schedule"),
        ({"spread": "thin"}, "spread"),
        ({"measure": "joules"}, "measure"),
        ({"regrow": "hope"}, "regrow"),
        ({"threshold": ("median", 1.0)}, "threshold"),
        ({"threshold": ("absolute", 0.0)}, "threshold"),
        ({"start": -0.1}, "start"),
        ({"start": 0.6, "end": 0.6}, "end"),
        ({"end": 1.1}, "end"),
        ({"every": 0}, "every"),
        ({"recovery_rounds": -1}, "recovery_rounds"),
        ({"exchange": 0.0}, "exchange"),
        ({"gamma": 1.5}, "gamma"),
        ({"density": 0.5, "schedule": "regrow", "regrow": "local", "every": 1}, "every"),
        ({"rate": 0.0}, "rate"),
        ({"levels": (0.5, 0.0)}, "levels"),
        ({"method": "snip", "merge": "loudest"}, "merge"),
        ({"method": "snip", "merge": "quorum", "quorum": 0.0}, "merge"),
        ({"density": 0.5, "layers": (("fc*", 0.0),)}, r"layers\['fc\*'\]"),
        ({"schedule": "staged", "density": 0.2, "stages": ((0.2, 0.5), (0.1, 0.2))}, "stages"),
        ({"schedule": "staged", "density": 0.5, "stages": ((0.1, 0.2), (0.2, 0.5))}, "stages"),
    ],
)
def test_values_out_of_range_name_their_key(settings: dict[str, object], key: str) -> None:
    with pytest.raises(LocalError, match=rf"pruning\.{key} is out of range"):
        PruningPlan(**settings)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    ("settings", "first", "second"),
    [
        ({"threshold": ("mean", 1.0), "schedule": "once", "density": 0.1}, "threshold", "density"),
        ({"threshold": ("mean", 1.0), "schedule": "once", "method": "random"}, "threshold", "method"),
        ({"threshold": ("mean", 1.0), "schedule": "once", "spread": "erk"}, "threshold", "spread"),
        ({"threshold": ("mean", 1.0)}, "threshold", "schedule"),
        ({"stages": ((0.1, 0.5),), "density": 0.5}, "schedule", "stages"),
        ({"schedule": "staged", "density": 0.5}, "schedule", "stages"),
        ({"schedule": "staged", "density": 0.2, "stages": ((0.1, 0.5),)}, "stages", "density"),
        ({"layers": (("fc*", 0.5),)}, "layers", "density"),
        ({"measure": "cost", "density": 0.5, "spread": "erk"}, "measure", "spread"),
        ({"measure": "cost", "density": 0.5, "layers": (("fc*", 0.5),)}, "measure", "spread"),
        ({"method": "synflow", "density": 0.5, "spread": "erk"}, "method", "spread"),
        ({"method": "synflow", "density": 0.5, "measure": "cost"}, "measure", "method"),
        ({"spread": "lamp", "density": 0.5, "method": "random"}, "spread", "method"),
        ({"merge": "union", "density": 0.5}, "merge", "method"),
        ({"merge": "union", "density": 0.5, "method": "snip", "schedule": "regrow"}, "merge", "schedule"),
        ({"merge": "union", "density": 0.5, "method": "snip", "layers": (("fc*", 0.5),)}, "merge", "layers"),
        ({"merge": "union", "density": 0.5, "method": "snip", "measure": "cost"}, "merge", "measure"),
    ],
)
def test_two_rules_that_contradict_are_both_named(settings: dict[str, object], first: str, second: str) -> None:
    with pytest.raises(LocalError, match=rf"pruning\.{first} and pruning\.{second} contradict"):
        PruningPlan(**settings)  # type: ignore[arg-type]  # wrong on purpose


def test_a_threshold_prunes_although_the_density_is_one() -> None:
    assert PruningPlan(threshold=("mean", 1.0), schedule="once").prunes
    assert not PruningPlan().prunes


def test_scores_that_need_clients_are_methods() -> None:
    assert "magnitude" not in FROM_CLIENTS
    assert "snip" in FROM_CLIENTS


def refusal(plan: PruningPlan, cost: dict[str, float] | None = None) -> str:
    """What the check says against the plan for this model; nothing where both go together."""
    try:
        check_model(plan, MODEL, cost)
    except LocalError as error:
        return str(error)
    return ""


def test_plan_and_model_that_go_together_pass() -> None:
    assert refusal(PruningPlan(density=0.4, spread="erk", layers=(("conv*", 0.5),))) == ""
    assert refusal(PruningPlan(density=0.3, measure="cost"), {"conv.weight": 64.0, "fc.weight": 1.0}) == ""
    assert "cost of a weight" in refusal(PruningPlan(density=0.3, measure="cost"), {"conv.weight": 64.0})
    assert refusal(PruningPlan(threshold=("mean", 1.0), schedule="init")) == ""


@pytest.mark.parametrize(
    ("plan", "problem"),
    [
        (PruningPlan(density=0.5, layers=(("Fc*", 0.5),)), "'Fc\\*' matches no tensor"),
        (PruningPlan(density=0.1, layers=(("fc*", 1.0),)), "contradict the density of the whole"),
        (PruningPlan(density=0.5, measure="cost"), "needs the cost of a weight"),
        (PruningPlan(density=0.5, method="synflow"), "not a chain of matrices"),
        (PruningPlan(density=0.01), "floors hold more"),
        (PruningPlan(density=0.01, floors=Floors(weights=100, connect=False)), "floors hold more"),
    ],
)
def test_plans_that_this_model_cannot_follow_are_refused(plan: PruningPlan, problem: str) -> None:
    with pytest.raises(LocalError, match=problem):
        check_model(plan, MODEL)
