"""Who is refused and comes again at once is told apart from who waits as it was told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fedprune.errors import BusyError, FedpruneError, IdentityError, RoleError, StaleError, UpdateError
from fedprune_server import nagging
from fedprune_server.nagging import REFUSALS_AT_ONCE, REFUSALS_PER_S, Nags

AT_ONCE = int(REFUSALS_AT_ONCE)


@pytest.mark.parametrize("kind", [BusyError, IdentityError, RoleError])
def test_a_few_refusals_are_nothing_and_one_more_is_too_many(kind: Callable[[str], FedpruneError]) -> None:
    nags = Nags()
    assert [nags.refused("a", kind("no"), 0.0) for _ in range(AT_ONCE + 2)] == [False] * AT_ONCE + [True] * 2
    assert not nags.refused("b", kind("no"), 0.0)


@pytest.mark.parametrize("kind", [StaleError, UpdateError])
def test_who_only_sent_something_wrong_does_not_nag(kind: Callable[[str], FedpruneError]) -> None:
    nags = Nags()
    assert not any(nags.refused("a", kind("no"), 0.0) for _ in range(100))


def test_who_waits_in_between_may_come_for_ever() -> None:
    nags = Nags()
    assert not any(nags.refused("a", BusyError("no"), 2.0 * number / REFUSALS_PER_S) for number in range(1000))


def test_a_moment_of_patience_makes_good_whatever_was_before() -> None:
    nags = Nags()
    for _ in range(1000):
        nags.refused("a", BusyError("no"), 0.0)
    assert nags.refused("a", BusyError("no"), 0.5 / REFUSALS_PER_S)
    assert not nags.refused("a", BusyError("no"), 1.5 / REFUSALS_PER_S)


def test_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nagging, "MOST_REMEMBERED", 2)
    nags = Nags()
    for _ in range(AT_ONCE):
        nags.refused("first", BusyError("no"), 0.0)
    for name in ("second", "third"):
        nags.refused(name, BusyError("no"), 0.0)
    assert list(nags._refused) == ["second", "third"]
