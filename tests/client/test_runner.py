"""What touches the replica happens one thing after another, in whichever thread."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from fedprune.task import load_task
from fedprune.torch import build_model, signature
from fedprune_client.outbox import Outbox
from fedprune_client.residual import ResidualFile
from fedprune_client.runner import Runner
from fedprune_client.transport import Link

from .conftest import WriteTask


def runner(folder: Path, task: Path) -> Runner:
    loaded = load_task(task)
    model = build_model(loaded)
    return Runner(
        link=Link("127.0.0.1:1", "a", say=print),
        task=loaded,
        model=model,
        schema=signature(model),
        data=folder,
        outbox=Outbox(folder / "outbox"),
        residual=ResidualFile(folder=folder, say=print),
        say=print,
    )


async def test_light_work_needs_no_thread_while_nothing_is_in_hand(tmp_path: Path, write_task: WriteTask) -> None:
    client = runner(tmp_path, write_task())
    assert await client._in_worker(threading.current_thread, light=True) is threading.current_thread()
    assert await client._in_worker(threading.current_thread) is not threading.current_thread()
    assert await client._in_worker(threading.current_thread, light=True) is threading.current_thread()


async def test_light_work_waits_for_what_was_abandoned(tmp_path: Path, write_task: WriteTask) -> None:
    client = runner(tmp_path, write_task())
    begun, go_on, order = threading.Event(), threading.Event(), list[str]()

    def abandoned() -> None:
        begun.set()
        go_on.wait()
        order.append("abandoned")

    doing = asyncio.create_task(client._in_worker(abandoned))
    await asyncio.to_thread(begun.wait)
    doing.cancel()
    await asyncio.gather(doing, return_exceptions=True)
    light = asyncio.create_task(client._in_worker(lambda: order.append("light"), light=True))
    await asyncio.sleep(0)
    go_on.set()
    await light
    assert order == ["abandoned", "light"]
