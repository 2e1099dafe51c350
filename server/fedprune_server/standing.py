"""How the run and each client stand, told again and again while a coordinator works: to its terminal, or to a file
that another program on this machine looks at."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fedprune_server.coordinator import Coordinator
from fedprune_server.now import now

EVERY_S = 0.5

Show = Callable[[dict[str, Any]], None]


@asynccontextmanager
async def kept_up(coordinator: Coordinator, show: Show) -> AsyncIterator[None]:
    """Tell `show` how things stand until the block ends."""

    async def telling() -> None:
        while True:
            show(now(coordinator, monotonic_s=time.monotonic(), time_s=time.time()))
            await asyncio.sleep(EVERY_S)

    task = asyncio.create_task(telling())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def into(file: Path) -> Show:
    """Keep it in a file, as one JSON object; who reads finds the whole of it or of the one before."""
    part = file.with_name(f"{file.name}.part")

    def write(standing: dict[str, Any]) -> None:
        part.write_text(json.dumps(standing), encoding="utf-8")
        os.replace(part, file)

    return write
