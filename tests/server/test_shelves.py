"""A coordinator that is called off while it opens a run's store leaves the store closed."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from fedprune.config import RunConfig
from fedprune_server import shelves
from fedprune_server.site import Site


class Store:
    """One that only knows whether it is open."""

    is_open = True

    def close(self) -> None:
        self.is_open = False


async def test_a_store_that_opens_after_all_is_closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store, begun, go_on = Store(), threading.Event(), threading.Event()

    def slow(site: Site, config: RunConfig) -> tuple[Path, Any]:
        begun.set()
        go_on.wait()
        return tmp_path, store

    monkeypatch.setattr(shelves, "open_store", slow)
    opening = asyncio.create_task(shelves.opened(cast("Site", None), RunConfig()))
    await asyncio.to_thread(begun.wait)
    opening.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert not store.is_open
