"""Whom each trouble behind a run is told to."""

import asyncio

import pytest

from fedprune.errors import LocalError, StoreError
from fedprune_server.background import Background

TROUBLES = {
    "halt": StoreError("the disk is full"),
    "broken": LocalError("no such layer"),
    "crashed": ZeroDivisionError(),
}


@pytest.fixture
def heard() -> list[tuple[str, BaseException]]:
    return []


@pytest.fixture
def background(heard: list[tuple[str, BaseException]]) -> Background:
    return Background(
        halt=lambda error: heard.append(("halt", error)),
        broken=lambda error: heard.append(("broken", error)),
        crashed=lambda error: heard.append(("crashed", error)),
    )


async def for_ever() -> None:
    await asyncio.Event().wait()


async def fails(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("who", TROUBLES)
async def test_each_trouble_is_told_to_one(
    background: Background, heard: list[tuple[str, BaseException]], who: str
) -> None:
    background.spawn_guarded(fails(TROUBLES[who]))
    await background.over()
    assert heard == [(who, TROUBLES[who])]


async def test_it_is_over_when_what_has_begun_meanwhile_has_ended(background: Background) -> None:
    done = []

    async def first() -> None:
        background.spawn(second())

    async def second() -> None:
        for _ in range(9):
            await asyncio.sleep(0)
        done.append("second")

    background.spawn(first())
    await background.over()
    assert done == ["second"]


async def test_what_is_cancelled_is_no_trouble(background: Background, heard: list[tuple[str, BaseException]]) -> None:
    task = background.spawn_guarded(for_ever())
    await asyncio.sleep(0)
    task.cancel()
    await background.over()
    assert heard == []
