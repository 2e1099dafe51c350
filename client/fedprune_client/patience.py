"""Trying again until it works: with full jitter, so that a thousand clients do not come back as one."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc

from fedprune.errors import UnavailableError
from fedprune_client.troubles import LONGEST_DELAY_S, as_error, asked_for_s, out_of_patience

FIRST_DELAY_S = 0.5
# Someone may be watching a client that looks for its coordinator.
LONGEST_JOIN_DELAY_S = 5.0

Answer = TypeVar("Answer")


class Patience:
    """The waiting of one client for `server`; what is waited for is said."""

    def __init__(self, server: str, say: Callable[[str], None]) -> None:
        self._server = server
        self._say = say
        self._back = asyncio.Event()

    def wake(self) -> None:
        """The coordinator is there again: nobody sleeps on."""
        self._back.set()
        self._back = asyncio.Event()

    async def until_done(
        self,
        doing: str,
        call: Callable[[], Awaitable[Answer]],
        *,
        longest_s: float = LONGEST_DELAY_S,
        patience_s: float = 0.0,
    ) -> Answer:
        """Repeat a call until it succeeds or is refused for good, with pauses that grow up to `longest_s`; for
        `patience_s`, 0 is for ever."""
        delay = FIRST_DELAY_S
        now = asyncio.get_running_loop().time
        last_s = now() + (patience_s or math.inf)
        while True:
            try:
                return await _made(call)
            except (grpc.aio.AioRpcError, TimeoutError, UnavailableError) as error:
                trouble = as_error(error, self._server)
                if not isinstance(trouble, UnavailableError):
                    raise trouble from error
                left_s = last_s - now()
                if left_s <= 0:
                    raise out_of_patience(trouble, self._server, patience_s) from error
                pause = min(asked_for_s(error) + random.uniform(0, delay), left_s)
                left = f", for {left_s:.0f} s more" if patience_s else ""
                self._say(f"{doing}: {trouble}; again in {pause:.1f} s{left}")
                # Whoever joins again knows that the coordinator is back.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._back.wait()
                delay = min(delay * 2, longest_s)


async def _made(call: Callable[[], Awaitable[Answer]]) -> Answer:
    """The answer to a call. Raises `UnavailableError` where its connection was closed under it, as an older one is after a
    certificate was renewed: gRPC tells that as if whoever waits had been called off."""
    try:
        return await call()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise UnavailableError("the connection was closed") from None
