"""The account of every byte: client x round x direction x kind.

Both ends count what they send and receive in the same words, so that a report can be held against the socket. The
rows are kept as a hash chain: `link` binds each to the one before it, so that a changed, missing or swapped row
shows. This module counts and hashes; it does not store, and it knows no clock.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from enum import Enum
from typing import Literal

from fedprune.errors import LocalError

# What the first row of a chain names as the row before it.
GENESIS = "0" * 64


class Direction(Enum):
    """Seen from the client: `up` is what it sends to the coordinator."""

    UP = "up"
    DOWN = "down"

    # Each is only itself. That of Enum is a call of Python, and whatever moves is counted by these.
    __hash__ = object.__hash__


class Kind(Enum):
    """What bytes are for. `snapshot` is a whole model, whatever its parts; `retransmit` are bytes sent again."""

    VALUES = "values"
    POSITIONS = "positions"
    MASK = "mask"
    SCALES = "scales"
    MANIFEST = "manifest"
    CONTROL = "control"
    HEARTBEAT = "heartbeat"
    SNAPSHOT = "snapshot"
    RETRANSMIT = "retransmit"

    __hash__ = object.__hash__


Key = Literal["client", "round", "direction", "kind"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """So many bytes, of one kind, in one direction, for one client (its index) in one round."""

    client: int
    round: int
    direction: Direction
    kind: Kind
    bytes: int

    def __post_init__(self) -> None:
        for name in ("client", "round", "bytes"):
            if getattr(self, name) < 0:
                raise LocalError(f"a ledger entry has a negative {name}", seen=getattr(self, name), expected=">= 0")


class Ledger:
    """Sums of entries; two entries that differ in bytes only become one."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._sums: Counter[tuple[int, int, Direction, Kind]] = Counter()
        self.extend(entries)

    def __iter__(self) -> Iterator[Entry]:
        """One entry for each (client, round, direction, kind), in order of round, client, direction, kind."""
        for client, round_, direction, kind in sorted(self._sums, key=_reading_order):
            total = self._sums[client, round_, direction, kind]
            yield Entry(client=client, round=round_, direction=direction, kind=kind, bytes=total)

    def add(self, entry: Entry) -> None:
        """Count one entry."""
        self.count(entry.client, entry.round, entry.direction, entry.kind, entry.bytes)

    def count(self, client: int, round: int, direction: Direction, kind: Kind, bytes: int) -> None:
        """Count what would be one entry."""
        self._sums[client, round, direction, kind] += bytes

    def extend(self, entries: Iterable[Entry]) -> None:
        """Count many; another ledger is a fine argument."""
        for entry in entries:
            self.add(entry)

    def total(
        self,
        *,
        client: int | None = None,
        round: int | None = None,
        direction: Direction | None = None,
        kind: Kind | None = None,
    ) -> int:
        """Bytes over all entries that match what is given."""
        wanted = (client, round, direction, kind)
        return sum(
            count
            for key, count in self._sums.items()
            if all(want is None or want == have for want, have in zip(wanted, key, strict=True))
        )

    def by(self, *keys: Key) -> dict[tuple[object, ...], int]:
        """Bytes grouped by these keys, in the order given: `by("round", "direction")[3, Direction.UP]`."""
        positions = [("client", "round", "direction", "kind").index(key) for key in keys]
        sums: Counter[tuple[object, ...]] = Counter()
        for key, count in self._sums.items():
            sums[tuple(key[p] for p in positions)] += count
        return dict(sums)

    def to_csv(self) -> str:
        """The entries as text with a header line: client,round,direction,kind,bytes."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([f.name for f in fields(Entry)])
        writer.writerows([e.client, e.round, e.direction.value, e.kind.value, e.bytes] for e in self)
        return text.getvalue()


def _reading_order(key: tuple[int, int, Direction, Kind]) -> tuple[int, int, str, str]:
    client, round_, direction, kind = key
    return round_, client, direction.value, kind.value


def link(*, sequence: int, previous: str, body: str) -> str:
    """SHA-256 (hex) of a chain's row `sequence` (from 1), bound to the hash of the row before it (`GENESIS` first)."""
    return hashlib.sha256(f"{sequence}\n{previous}\n{body}".encode()).hexdigest()
