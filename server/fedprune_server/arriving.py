"""The updates of the open round, summed while they are checked, so that little is left to do when the round closes.

An update is summed before it has its receipt, because it is decoded then. So the sums are used only where they hold
exactly the accepted set: an update that was refused, or is still on its way, makes them worthless, and the accepted
updates are folded from their files, to the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from threading import Lock

from fedprune.tensor import Version
from fedprune_server.aggregation import FoldInput
from fedprune_server.aggregation.sums import Sums

# One update: its assignment, the SHA-256 (hex) of its bytes, and how many examples it stands for.
Key = tuple[int, str, int]


@dataclass(slots=True)
class Arriving:
    """What is summed of the updates against the latest version. Any thread may call."""

    _model: int = -1
    _sums: Sums | None = None
    _begun: set[Key] = field(default_factory=set)
    _summed: set[Key] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock)

    def add(
        self,
        version: Version,
        key: Key,
        update: FoldInput,
        *,
        begin: Callable[[], Sums | None],
        check: Callable[[], None],
    ) -> None:
        """Check an update against `version`: by summing it, else by `check()`. Raises its `UpdateError`.

        `begin()` gives the sums of no update, or None for a rule that does not sum."""
        with self._lock:
            if version.model > self._model:
                self._model, self._sums = version.model, begin()
                self._begun, self._summed = set(), set()
            summed, sums = self._summed, self._sums if version.model == self._model else None
            if key in summed:
                return
            first = key not in self._begun
            if sums is not None:
                self._begun.add(key)
        if sums is None or not first:
            check()
            return
        sums.add(update)
        with self._lock:
            summed.add(key)

    def take(self, accepted: Iterable[Key]) -> Sums | None:
        """The sums of exactly these updates, if that is what there is. From here on, nothing more is summed."""
        with self._lock:
            sums, self._sums = self._sums, None
            return sums if self._begun == self._summed == set(accepted) else None
