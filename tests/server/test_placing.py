"""Which part of the model a client holds: by hand, by its speed, and what is known after a restart."""

from __future__ import annotations

import pytest

from fedprune.config import RunConfig
from fedprune.tensor import Role, Schema, TensorSpec
from fedprune_server import plan
from fedprune_server.members import Member
from fedprune_server.placing import MARGIN, Placing

LEVELS = (0.05, 0.2, 1.0)


def placing(by_hand: dict[str, float] | None = None, *, densities: tuple[float, ...] = LEVELS) -> Placing:
    """A dense round moves 1,000 bytes that depend on the density and 200 that do not, and may take 10 s."""
    return Placing(
        densities=densities,
        by_hand=by_hand or {},
        deadline_s=10.0 / MARGIN,
        dense_bytes=1000.0,
        fixed_bytes=200.0,
        member=lambda i: Member(
            index=i, identity=f"id-{i}", name=f"site-{i}" if i else "", task_digest="", frozen_digest=""
        ),
    )


def test_without_levels_everyone_holds_the_whole_model() -> None:
    assert placing(densities=()).choose(1) is None
    assert placing(densities=()).chosen(1) is None


def test_names_and_identities_are_set_by_hand_and_the_first_that_fits_counts() -> None:
    found = placing({"site-2": 1.0, "site-*": 0.2, "id-0": 0.05})
    assert [found.choose(client) for client in (0, 1, 2)] == [0.05, 0.2, 1.0]
    found.measured(1, work_s=0.0, bytes_per_s=1e9)
    assert found.choose(1) == 0.2


def test_who_holds_a_level_holds_no_more_than_the_run_has() -> None:
    found = placing({"site-2": 1.0, "site-*": 0.2})
    assert not found.clients
    for client in (2, 1):
        found.choose(client)
    assert found.clients == (1, 2)
    assert [found.held(client, most=0.5) for client in (1, 2)] == [0.2, 0.5]


@pytest.mark.parametrize(
    ("work_s", "bytes_per_s", "level"),
    [(0.0, 1200 / 10, 1.0), (0.0, 1199 / 10, 0.2), (6.0, 100.0, 0.2), (6.1, 100.0, 0.05), (60.0, 1e9, 0.05)],
)
def test_a_client_begins_low_and_then_carries_what_it_can(work_s: float, bytes_per_s: float, level: float) -> None:
    found = placing()
    assert found.choose(1) == 0.05
    found.measured(1, work_s=work_s, bytes_per_s=bytes_per_s)
    assert found.chosen(1) == 0.05
    assert found.choose(1) == level
    assert found.chosen(1) == level
    assert found.choose(2) == 0.05


def test_what_could_not_be_measured_changes_nothing() -> None:
    found = placing()
    found.measured(1, work_s=0.0, bytes_per_s=None)
    assert found.choose(1) == 0.05


def test_one_slow_round_does_not_throw_a_client_down() -> None:
    found = placing()
    found.measured(1, work_s=0.0, bytes_per_s=1000.0)
    found.measured(1, work_s=12.0, bytes_per_s=1000.0)
    assert found.choose(1) == 1.0


def test_after_a_restart_a_client_keeps_its_level_until_it_is_measured() -> None:
    found = placing()
    found.take_over({1: 0.2})
    assert [found.chosen(1), found.choose(1)] == [0.2, 0.2]
    found.measured(1, work_s=0.0, bytes_per_s=1e9)
    assert found.choose(1) == 1.0


def test_a_round_is_weighed_both_ways() -> None:
    schema = Schema(tensors=(TensorSpec(name="w", shape=(30, 10)), TensorSpec(name="b", shape=(30,), role=Role.FREE)))
    raw = RunConfig.loads("[compression]\nup = 'int8'\ntop = 0.5\n")
    assert plan.round_bytes(raw, schema) == (300 * (0.5 + 4.0), 2 * (120 + 1000.0))
