"""Tasks behind a run, none of which fails unheard: each trouble has somebody who is told of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from fedprune.errors import FedpruneError, StoreError

log = logging.getLogger("fedprune.run")


@dataclass(slots=True, kw_only=True)
class Background:
    """`halt` is told of a store that has ended, `broken` of what else goes wrong, `crashed` of a bug."""

    halt: Callable[[StoreError], None]
    broken: Callable[[FedpruneError], None]
    crashed: Callable[[BaseException], None]
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin work that sees to its own errors."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def spawn_guarded(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin work whose errors `halt` or `broken` is told of."""
        return self.spawn(self._guarded(work))

    async def over(self) -> None:
        """Return when nothing is going on any more."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except StoreError as error:
            self.halt(error)
        except FedpruneError as error:
            self.broken(error)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("the run broke", exc_info=error)
            self.crashed(error)
