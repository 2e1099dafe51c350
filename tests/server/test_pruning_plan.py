"""The run file's [pruning] section, as the pruner understands it."""

import pytest

from fedprune.config import RunConfig
from fedprune.errors import ConfigError, LocalError
from fedprune.pruning import Floors, PruningPlan, Step
from fedprune.tensor import Role, Schema, TensorSpec
from fedprune_server.plan import pruning_plan
from fedprune_server.pruner import Pruner

SCHEMA = Schema(
    tensors=(
        TensorSpec(name="w", shape=(40, 20), dtype="float32", role=Role.PRUNABLE),
        TensorSpec(name="b", shape=(40,), dtype="float32", role=Role.FREE),
    )
)


def plan_of(text: str) -> PruningPlan:
    return pruning_plan(RunConfig.loads(f"[pruning]\n{text}"), SCHEMA)


def test_an_empty_section_is_off() -> None:
    assert plan_of("") == PruningPlan(recovery_rounds=0)
    assert not plan_of("").prunes


def test_every_key_arrives() -> None:
    plan = plan_of(
        """
        density = 0.1
        method = "magnitude"
        schedule = "linear"
        start = 0.2
        end = 0.5
        every = 3
        spread = "erk"
        layers = {"fc*" = 0.5, "conv1.weight" = 1.0}
        floor = 4
        floor_share = 0.01
        connect = false
        """
    )
    assert plan == PruningPlan(
        density=0.1,
        schedule="linear",
        start=0.2,
        end=0.5,
        every=3,
        spread="erk",
        layers=(("fc*", 0.5), ("conv1.weight", 1.0)),
        floors=Floors(weights=4, share=0.01, connect=False),
        recovery_rounds=0,
    )


def test_whose_mask() -> None:
    assert plan_of("density = 0.1\nlevels = [0.05, 1.0]").levels == (0.05, 1.0)
    merged = plan_of('density = 0.1\nmethod = "snip"\nmerge = "quorum"\nquorum = 0.3')
    assert (merged.merge, merged.quorum) == ("quorum", 0.3)


def test_stages_and_thresholds() -> None:
    staged = plan_of('density = 0.1\nschedule = "staged"\nstages = [[0, 0.5], [0.25, 0.1]]')
    assert Pruner(staged, 40).steps == (Step(round=0, density=0.5), Step(round=10, density=0.1))
    regrow = plan_of('density = 0.2\nschedule = "regrow"\nregrow = "posterior"\nexchange = 0.4\nevery = 10')
    assert (regrow.regrow, regrow.exchange) == ("posterior", 0.4)
    assert Pruner(regrow, 40).scored_rounds == {10, 20}
    assert Pruner(plan_of('density = 0.2\nmethod = "snip"\nschedule = "init"'), 40).scored_rounds == {0}
    assert Pruner(plan_of("density = 0.2"), 40).scored_rounds == set()
    assert plan_of('schedule = "init"\nthreshold = {mean = 1.5}').threshold == ("mean", 1.5)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('method = "obd"', "method"),
        ("stages = [[0.1, 0.5, 0.2]]", "stages"),
        ("layers = {fc = 0}", "layers"),
        ("threshold = {median = 1}", "threshold"),
        ("threshold = {mean = 1, absolute = 1}", "either absolute or mean"),
    ],
)
def test_what_the_file_may_not_say(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        plan_of(text)


def test_rules_that_contradict_are_refused_before_the_run() -> None:
    with pytest.raises(LocalError, match=r"pruning\.threshold and pruning\.density contradict"):
        plan_of('density = 0.1\nschedule = "once"\nthreshold = {mean = 1.0}')


def test_the_resolved_file_says_the_same() -> None:
    config = RunConfig.loads(
        '[pruning]\ndensity = 0.1\nschedule = "staged"\nstages = [[0.2, 0.1]]\nlayers = {"a*" = 0.1}'
    )
    assert pruning_plan(RunConfig.loads(config.to_toml()), SCHEMA) == pruning_plan(config, SCHEMA)
