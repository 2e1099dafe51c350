"""Which runs a comparison makes, and which controls."""

from collections.abc import Sequence

import pytest

from fedprune.config import RunConfig
from fedprune.errors import ConfigError
from fedprune_lab.strategies import narrow_control, parse_vary, random_control, slug, strategies

BASE = '[run]\nrounds = 7\n[training]\nlearning_rate = 0.3\n[pruning]\nprotect = ["head.*"]\nfloor = 4\n'


def load(overrides: Sequence[str]) -> RunConfig:
    return RunConfig.loads(BASE, overrides=overrides)


def test_values_are_split_at_commas_but_not_inside_brackets() -> None:
    assert parse_vary("pruning.method=snip, magnitude") == ("pruning.method=snip", "pruning.method=magnitude")
    assert parse_vary("pruning.stages=[[0.1, 0.5], [0.3, 0.2]],[]") == (
        "pruning.stages=[[0.1, 0.5], [0.3, 0.2]]",
        "pruning.stages=[]",
    )


@pytest.mark.parametrize("vary", ["pruning.method", "pruning.method=", "method=snip"])
def test_what_cannot_be_read_is_told(vary: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        parse_vary(vary)


def test_every_combination_runs_with_every_seed_beside_the_dense_run() -> None:
    found = strategies(load, ["pruning.preset=gradual,snip", "pruning.density=0.1,0.2"], [1, 5])
    assert [s.name for s in found] == [
        "dense",
        "preset gradual density 0.1",
        "preset gradual density 0.2",
        "preset snip density 0.1",
        "preset snip density 0.2",
    ]
    assert all(tuple(s.configs) == ((1, None), (5, None)) for s in found)
    names = [config.run.name for s in found for config in s.configs.values()]
    assert len(set(names)) == 10
    assert {config.run.seed for s in found for config in s.configs.values()} == {1, 5}
    dense, snip = found[0].configs[5, None], found[3].configs[5, None]
    assert (dense.pruning.density, dense.pruning.protect, dense.pruning.method) == (1.0, ("head.*",), "magnitude")
    assert (snip.pruning.schedule, snip.pruning.density) == ("init", 0.1)
    assert dense.differences(snip) == ["run.name", *(k for k in dense.differences(snip) if k.startswith("pruning."))]


def test_with_folds_each_part_is_held_out_in_turn() -> None:
    dense, thin = strategies(load, ["pruning.density=0.1"], [1, 5], folds=4)
    for found in (dense, thin, random_control(thin, 0.1)):
        assert list(found.configs) == [(seed, fold) for seed in (1, 5) for fold in range(4)]
        assert [c.training.fold for c in found.configs.values()] == [0, 1, 2, 3] * 2
        assert {c.training.held_out for c in found.configs.values()} == {0.25}
        assert len({c.run.name for c in found.configs.values()}) == 8


def test_controls_differ_in_pruning_and_in_nothing_else() -> None:
    like = strategies(load, ["pruning.density=0.1"], [3])[1]
    control, narrow = random_control(like, 0.123), narrow_control(like, 900)
    assert control.name == "random mask 0.123"
    pruning = control.configs[3, None].pruning
    assert (pruning.density, pruning.method, pruning.schedule, pruning.spread) == (0.123, "random", "init", "erk")
    assert (pruning.protect, pruning.floor) == (("head.*",), 4)
    assert narrow.configs[3, None].pruning.density == 1.0
    for changed in (control.configs[3, None], narrow.configs[3, None]):
        other = [key for key in like.configs[3, None].differences(changed) if not key.startswith("pruning.")]
        assert other == ["run.name"]


def test_a_strategys_folder_is_a_name_that_a_run_may_have() -> None:
    name = slug("stages [[0.1, 0.5]] method snip " * 5, (12, None))
    assert RunConfig.loads(f'[run]\nname = "{name}"').run.name == name
