"""Timers by name: each rings once, unless it is set again or cleared first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from fedprune_server.events import Event


@dataclass(slots=True)
class Timers:
    """What a run waits for by the clock; `ring` gets the event of a timer that is due, and asks by what else it gets whether
    that is so still: the timer may be cleared or set again before the event is dealt with."""

    ring: Callable[[Event, Callable[[], bool]], None]
    _pending: dict[str, asyncio.TimerHandle] = field(default_factory=dict)

    def set(self, name: str, seconds: float, event: Event) -> None:
        """Ring after so long; an older timer of this name is forgotten."""
        self.clear(name)
        self._pending[name] = asyncio.get_running_loop().call_later(seconds, self._due, name, event)

    def _due(self, name: str, event: Event) -> None:
        timer = self._pending[name]
        self.ring(event, lambda: self._pending.get(name) is timer)

    def clear(self, name: str) -> None:
        """Forget the timer of this name, if it is set."""
        timer = self._pending.pop(name, None)
        if timer is not None:
            timer.cancel()

    def clear_all(self) -> None:
        """Forget all of them."""
        for name in list(self._pending):
            self.clear(name)
