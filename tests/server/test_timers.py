"""Timers ring once, and what was cleared before anybody could deal with it is no longer due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from fedprune_server.background import Background
from fedprune_server.events import DeadlinePassed, Event, Settled
from fedprune_server.run import Run
from fedprune_server.timers import Timers


class Bell:
    """What rang so far."""

    def __init__(self) -> None:
        self.rang: list[tuple[Event, Callable[[], bool]]] = []
        self.timers = Timers(lambda event, is_due: self.rang.append((event, is_due)))

    async def next(self) -> tuple[Event, Callable[[], bool]]:
        while not self.rang:
            await asyncio.sleep(0)
        return self.rang.pop(0)


async def test_it_rings_with_its_event_and_not_after_it_was_cleared() -> None:
    bell = Bell()
    bell.timers.set("settle", 0.0, Settled())
    bell.timers.clear("settle")
    bell.timers.set("deadline", 0.0, DeadlinePassed())
    event, is_due = await bell.next()
    assert (event, is_due(), bell.rang) == (DeadlinePassed(), True, [])


async def test_what_is_cleared_or_set_again_after_it_rang_is_not_due() -> None:
    bell = Bell()
    for change in (bell.timers.clear, lambda name: bell.timers.set(name, 1e6, Settled())):
        bell.timers.set("deadline", 0.0, DeadlinePassed())
        _, is_due = await bell.next()
        change("deadline")
        assert not is_due()
    bell.timers.clear_all()


async def test_the_deadline_of_a_round_that_a_last_receipt_closed_is_not_the_next_one_s() -> None:
    """It rang while that receipt was being committed."""
    committed, heard, troubles = asyncio.Event(), list[Event](), list[BaseException]()
    background = Background(halt=troubles.append, broken=troubles.append, crashed=troubles.append)
    run = cast(
        "Any",
        SimpleNamespace(intake=SimpleNamespace(idle=committed.wait), dispatch=heard.append, _background=background),
    )
    timers = Timers(lambda event, is_due: Run._ring(run, event, is_due))
    timers.set("deadline", 0.0, DeadlinePassed())
    timers.set("grace-1", 0.0, Settled())
    while len(background._tasks) < 2:
        await asyncio.sleep(0)
    timers.set("deadline", 1e6, DeadlinePassed())
    committed.set()
    await background.over()
    timers.clear_all()
    assert (heard, troubles) == ([Settled()], [])
