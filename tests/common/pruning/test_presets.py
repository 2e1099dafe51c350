"""Papers by name give plans that hold together, and say so when a setting is against them."""

from typing import get_args

import pytest

from fedprune.errors import LocalError
from fedprune.pruning import steps
from fedprune.pruning.presets import PRESETS, preset
from fedprune.pruning_section import Preset


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_plan_that_can_run(name: str) -> None:
    plan = preset(name, density=0.2)
    assert plan.density == 0.2
    assert steps(plan, 40)[-1].density == 0.2


def test_settings_are_the_users_but_not_against_the_paper() -> None:
    assert preset("gradual", density=0.1, start=0.2, schedule="cubic").start == 0.2
    with pytest.raises(LocalError, match=r"preset 'snip' and pruning\.schedule contradict"):
        preset("snip", density=0.1, schedule="cubic")
    with pytest.raises(LocalError, match="no setting 'sparsity'"):
        preset("snip", sparsity=0.9)
    with pytest.raises(LocalError, match="no such preset"):
        preset("lottery")


def test_the_run_file_knows_them_all() -> None:
    assert get_args(Preset) == tuple(PRESETS)
