"""Budgets in the run file's words, as densities of a model whose weights can be counted by hand."""

import pytest

from fedprune.config import RunConfig
from fedprune.errors import ConfigError, LocalError
from fedprune.flops import Cost
from fedprune.tensor import Role, Schema, TensorSpec
from fedprune_server.budgeting import budgeted
from fedprune_server.plan import pruning_plan
from fedprune_server.pruner import Pruner

SCHEMA = Schema(
    tensors=(
        TensorSpec(name="a", shape=(40, 20), dtype="float32", role=Role.PRUNABLE),
        TensorSpec(name="b", shape=(10, 20), dtype="float32", role=Role.PRUNABLE),
        TensorSpec(name="c", shape=(250,), dtype="float32", role=Role.FREE),
    )
)
COST = Cost(per_weight={"a": 10.0, "b": 1.0}, fixed=500.0)


def density(text: str, cost: Cost | None = None, more: str = "") -> float:
    return budgeted(RunConfig.loads(f"[pruning]\n{text}\n{more}"), SCHEMA, cost).density


def test_without_a_budget_the_density_is_meant() -> None:
    assert budgeted(RunConfig.loads("[pruning]\ndensity = 0.25"), SCHEMA, None).says == ""
    assert density("density = 0.25") == 0.25


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("budget = {keep = 0.25}", 250),
        ("budget = {compression = 8}", 125),
        ('budget = {compression = 4}\nover = "all"', 1250 / 4 - 250),
        ("budget = {parameters = 333}", 333),
        ('budget = {parameters = 333}\nover = "all"', 83),
    ],
)
def test_shares_ratios_and_counts(text: str, kept: float) -> None:
    assert density(text) == int(kept) / 1000


def test_raw_values_weigh_what_lossless_ones_weigh_at_most() -> None:
    text = "budget = {bytes = 3000}"
    assert density(text, more='[compression]\nup = "raw"') == density(text) < 1.0


def test_it_is_said_what_a_budget_comes_to_and_over_what() -> None:
    text = '[pruning]\nbudget = {compression = 4}\nover = "all"'
    says = budgeted(RunConfig.loads(text), SCHEMA, None).says
    assert says == "compression = 4 over all weights: 62 of 1000 prunable weights (0.062), 0.2496 of all 1250"


@pytest.mark.parametrize(("values", "budget", "each"), [("lossless", 3000, 4), ("fp16", 3000, 2), ("int8", 2000, 1.02)])
def test_bytes_of_an_update(values: str, budget: int, each: float) -> None:
    found = density(f"budget = {{bytes = {budget}}}", more=f'[compression]\nup = "{values}"')
    assert found == int((budget - 1000) / each - 250) / 1000


def test_flops_are_shared_out_by_cost() -> None:
    config = RunConfig.loads("[pruning]\nbudget = {flops = 5200}\nschedule = 'init'\nfloor = 0\nfloor_share = 0.0")
    asked = budgeted(config, SCHEMA, COST)
    # 2600 multiply-adds, 500 fixed: 2100 of the 8200 that can be pruned.
    assert asked.density == pytest.approx(2100 / 8200)
    assert asked.measure == "cost"
    pruner = Pruner(pruning_plan(config, SCHEMA, COST), 10, cost=COST.per_weight)
    pruner.check(SCHEMA)


def test_impossible_budgets_are_told() -> None:
    with pytest.raises(LocalError, match="no mask can meet parameters = 200 over all weights"):
        density('budget = {parameters = 200}\nover = "all"')
    with pytest.raises(LocalError, match="the budget is spent before a prunable weight is counted"):
        density("budget = {flops = 900}", COST)
    with pytest.raises(ConfigError, match="no example to count them on"):
        density("budget = {flops = 9000}")


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("budget = {keep = 0.5}\ndensity = 0.1", 2, "budget and density = 0.1 contradict"),
        ("density = 1.0\nbudget = {keep = 0.5, bytes = 3}", 3, "one budget at a time, not keep and bytes"),
        ("budget = {bytes = 3e4}\n[compression]\ntop = 0.1", 2, "compression chooses a share"),
        ("max_accuracy_drop = 0.01\nbudget = {flops = 3e4}", 3, "steps on approval go by weights"),
        ('preset = "snip"\nschedule = "cubic"', 3, "'cubic' contradicts preset = 'snip', which has 'init'"),
        ('density = "auto"\nmethod = "snip"', 3, "needs the clients' scores before every step"),
        ('density = "auto"\nlayers = {a = 0.5}', 3, "finds its own densities"),
        ('density = "auto"\nschedule = "linear"', 3, "finds its own densities"),
        ("max_accuracy_drop = 0.01\nschedule = 'regrow'\ndensity = 0.5", 3, "steps on approval follow cubic"),
        ("max_accuracy_drop = 0.01\n[training]\nheld_out = 0.0", 4, "judged on what clients hold out"),
    ],
)
def test_contradictions_are_told_with_line_and_key(text: str, line: int, says: str) -> None:
    with pytest.raises(ConfigError, match=f"run.toml line {line}: .*{says}"):
        RunConfig.loads(f"[pruning]\n{text}", name="run.toml")


def test_a_preset_is_the_papers_keys_and_the_users() -> None:
    pruning = RunConfig.loads('[pruning]\npreset = "fedrts"\ndensity = 0.2\nevery = 3').pruning
    assert (pruning.schedule, pruning.regrow, pruning.spread) == ("regrow", "posterior", "erk")
    assert (pruning.density, pruning.every) == (0.2, 3)
    config = RunConfig.loads('[pruning]\npreset = "fedrts"\ndensity = 0.2')
    assert RunConfig.loads(config.to_toml()) == config
