"""Paths of densities for a run's controller, and runs that have no room for one."""

from itertools import pairwise

import pytest

from fedprune.errors import LocalError
from fedprune.pruning import PruningPlan
from fedprune.tensor import Role, Schema, TensorSpec
from fedprune_server.control_plan import auto_path, control_plan
from fedprune_server.trials import ControlPlan

SCHEMA = Schema(tensors=(TensorSpec(name="w", shape=(100, 50)), TensorSpec(name="b", shape=(9,), role=Role.FREE)))


def test_paths_for_runs_that_look_for_their_own_density() -> None:
    path = auto_path(0.05)
    assert path[0] == 0.7
    assert path[-1] == 0.05
    assert all(b >= 0.7 * a - 1e-12 for a, b in pairwise(path))
    assert auto_path(0.8) == (0.8,)
    ControlPlan(path=path, first=1, last=2)
    with pytest.raises(LocalError, match="no such path"):
        auto_path(0.0)


def test_a_target_is_reached_along_its_schedule() -> None:
    plan = control_plan(PruningPlan(density=0.1, recovery_rounds=5), 40, SCHEMA, max_drop=0.02)
    assert plan.path[-1] == 0.1
    assert len(plan.path) == 4
    # 40 rounds less 5 of steady state, the one that carries the mask down, and twice 3 of recovery.
    assert (plan.first, plan.last) == (4, 28)
    assert plan.max_drop == 0.02


def test_auto_goes_down_to_the_floors() -> None:
    plan = control_plan(PruningPlan(), 60, SCHEMA, max_drop=0.01, auto=True)
    assert plan.path[0] == 0.7
    assert plan.path[-1] == 100 / 5000


def test_runs_without_room_are_refused() -> None:
    with pytest.raises(LocalError, match="no room for a pruning step"):
        control_plan(PruningPlan(), 16, SCHEMA, max_drop=0.01, auto=True)
    with pytest.raises(LocalError, match="no room for a pruning step"):
        control_plan(PruningPlan(), 60, SCHEMA, max_drop=0.01)
