"""A run that another process has taken up opens nothing before its clients are back, or have had their time for it."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from fedprune_server.store.sqlite import DATABASE

from .federation import Federation, run_file, task_file, until

KEYS = ("run.rounds=4", "pruning.floor=2")
# Two of round 2's three are in; the third may come in while the first process ends.
RECEIPTS = 5


async def cut_off(folder: Path, *keys: str) -> tuple[Federation, str, str]:
    """A run in its second round, as the next process finds it: whom the round waits for, if anybody, and two others."""
    await Federation(folder, task_file(folder), [run_file(*KEYS, *keys)]).cut_off(receipts=RECEIPTS)
    with closing(sqlite3.connect(folder / "runs" / "run" / "state" / DATABASE)) as rows:
        done = {client for (client,) in rows.execute("SELECT client FROM receipts WHERE round = 2")}
    awaited, *others = sorted("abc", key=lambda name: "abc".index(name) in done)
    return Federation(folder, folder / "task.py", [run_file(*KEYS, *keys)]), awaited, "".join(others)


async def test_clients_that_are_slow_to_come_back_are_in_the_next_round(tmp_path: Path) -> None:
    whole = Federation(tmp_path / "whole", task_file(tmp_path / "whole"), [run_file(*KEYS)])
    assert await whole.run()
    again, awaited, others = await cut_off(tmp_path / "cut")
    async with again.serving() as serving:
        again.start(awaited)
        await until(lambda: any("clients to come back: 2 of 3 away" in said for said in again.said), serving)
        await asyncio.sleep(0.3)
        assert {row.round for row in again.rounds} <= {2}
        for name in others:
            again.start(name)
        assert await again.end(serving)
    assert {row.clients_counted for row in again.rounds} == {3}
    assert again.model == whole.model


async def test_a_client_that_does_not_come_back_is_waited_for_once(tmp_path: Path) -> None:
    again, awaited, others = await cut_off(tmp_path, "clients.grace_s=6")
    async with again.serving() as serving:
        for name in (awaited, others[0]):
            again.start(name)
        assert await again.end(serving)
    assert [row.clients_counted for row in again.rounds if row.round > 2] == [2, 2]
    assert [said for said in again.said if "clients to come back: 1 of 3 away" in said]


async def test_a_process_that_is_asked_to_end_leaves_it_to_the_next_to_say_that_the_run_is_over(tmp_path: Path) -> None:
    keys = ("clients.grace_s=6",)
    again, awaited, others = await cut_off(tmp_path, *keys)
    async with again.serving() as serving:
        for name in (awaited, others[0]):
            again.start(name)
        await until(lambda: any("the run is over; waiting" in said for said in again.said), serving)
        again.server._suspended.set()
        assert not await serving
    assert any("1 of its clients may not have heard" in said for said in again.said)
    last = Federation(tmp_path, tmp_path / "task.py", [run_file(*KEYS, *keys)])
    async with last.serving() as serving:
        late = last.start(others[1])
        assert await last.end(serving)
        await late.end()
    assert [report.name for report in last.reports] == ["run"]
