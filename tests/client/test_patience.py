"""A coordinator that comes back is not run over by those who waited for it."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from fedprune.errors import UnavailableError
from fedprune_client.patience import LONGEST_JOIN_DELAY_S, Patience

CLIENTS = 1000


class Hurrying(selectors.DefaultSelector):
    """Does not wait: what a loop would sleep is added to its clock."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if not found and timeout:
            self.now_s += timeout
        return found


@pytest.fixture
def hurried() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in which a minute takes no time."""
    selector = Hurrying()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now_s  # type: ignore[method-assign]
    random.seed(1)
    yield loop
    loop.close()


def came_back(loop: asyncio.AbstractEventLoop, *, away_s: float) -> list[float]:
    """When each of a thousand clients got through to a coordinator that had been away for so long."""

    async def one() -> float:
        async def join() -> float:
            if loop.time() < away_s:
                raise UnavailableError("nobody there")
            return loop.time() - away_s

        patience = Patience("127.0.0.1:1", lambda text: None)
        return await patience.until_done("joining", join, longest_s=LONGEST_JOIN_DELAY_S)

    async def everyone() -> list[float]:
        return await asyncio.gather(*(one() for _ in range(CLIENTS)))

    return loop.run_until_complete(everyone())


@pytest.mark.parametrize("away_s", [3.0, 20.0, 60.0])
def test_a_thousand_clients_come_back_at_twice_the_mean_rate_at_most(
    hurried: asyncio.AbstractEventLoop, away_s: float
) -> None:
    """P6: a peak second against the mean of all seconds in which somebody came."""
    came_s = came_back(hurried, away_s=away_s)
    seconds = Counter(int(at) for at in came_s)
    assert max(came_s) <= LONGEST_JOIN_DELAY_S
    assert max(seconds.values()) <= 2 * CLIENTS / max(came_s)
