"""Counts the bytes of one run as they move: the codec's by kind, messages as control, and the kernel's beside them.

A round's account opens when the one before it closes, so every byte belongs to exactly one round; what moves before
the first round (joins, the first model) belongs to round 0 until the first round takes it over. Transfers that broke
and their repetition count as `retransmit`, so that the price of a bad link shows.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from threading import Lock

from fedprune.codec import account
from fedprune.ledger import Direction, Entry, Kind, Ledger
from fedprune.parts import Part, PartKind
from fedprune.sockets import Counters, SocketMeter
from fedprune.traffic import Traffic
from fedprune_server.members import Member, Members


class Accounts:
    """The open account of a run. `round` is the round that bytes belong to from now on."""

    def __init__(self, members: Members, meter: SocketMeter | None) -> None:
        self.round = 0
        self.pulls = 0
        self._members = members
        self._meter = meter
        self._open = Ledger()
        self._socket: defaultdict[int, Counters] = defaultdict(Counters)
        self._sampling = Lock()
        self._told: tuple[str, Mapping[str, int]] = ("", {})
        self._moved: Counter[tuple[int, Direction]] = Counter()
        # Bytes a second by client, as the last committed round showed them.
        self.links: dict[int, float] = {}

    def restore(self, entries: Iterable[Entry]) -> None:
        """Go on with what an earlier process counted."""
        for entry in entries:
            self._total(entry.client, entry.direction, entry.kind, entry.bytes)

    def moved(self, client: int) -> Traffic:
        """What this client has moved since the run began, heartbeats left out."""
        return Traffic(up=self._moved[client, Direction.UP], down=self._moved[client, Direction.DOWN])

    def add(self, member: Member, direction: Direction, kind: Kind, count: int) -> None:
        """Count bytes of one kind."""
        if count:
            self._open.count(member.index, self.round, direction, kind, count)
            self._total(member.index, direction, kind, count)

    def control(self, member: Member, *, up: int = 0, down: int = 0, heartbeat: bool = False) -> None:
        """Count a message that is not bulk."""
        kind = Kind.HEARTBEAT if heartbeat else Kind.CONTROL
        self.add(member, Direction.UP, kind, up)
        self.add(member, Direction.DOWN, kind, down)

    def sent(self, member: Member, part: Part, data: memoryview, *, start: int, end: int) -> None:
        """Count what was sent of a part: its kinds when it went out whole, `retransmit` when it broke or resumed."""
        if (start, end) != (0, part.size):
            self.add(member, Direction.DOWN, Kind.RETRANSMIT, end - start)
            return
        if part.kind is PartKind.MODEL:
            self.add(member, Direction.DOWN, Kind.SNAPSHOT, part.size)
            return
        # What goes to one client goes to all of them, one after the other.
        if part.digest != self._told[0]:
            self._told = part.digest, account(data)
        self._by_kind(member, Direction.DOWN, self._told[1])

    def received(self, member: Member, data: memoryview) -> None:
        """Count an update, once, when it is complete."""
        self._by_kind(member, Direction.UP, account(data))

    def received_again(self, member: Member, count: int) -> None:
        """Count bytes of an update that had arrived before."""
        self.add(member, Direction.UP, Kind.RETRANSMIT, count)

    def sample_sockets(self) -> None:
        """Take over what the kernel counted since the last sample, for every connection that belongs to a client. May
        be called from any thread."""
        with self._sampling:
            owners = {peer: m.index for m in list(self._members) for peer in list(m.peers)}
            sample = self._meter.sample(owners.keys()) if self._meter is not None else None
            if sample is None:
                return
            for peer, counters in sample.items():
                if peer in owners:
                    self._socket[owners[peer]] += counters

    @property
    def counts_sockets(self) -> bool:
        """Whether the kernel tells."""
        return self._meter is not None and self._meter.unavailable is None

    def transfers(self, *, updates: int) -> Traffic:
        """How many models went each way in the open round: what a dense federation would have sent at full price."""
        return Traffic(up=updates, down=self.pulls)

    def close_round(self) -> tuple[list[Entry], dict[int, Counters] | None]:
        """The entries of the open round and its socket bytes by client up to the last sample (None where the kernel
        does not tell); the next round is open from here."""
        entries, self._open = list(self._open), Ledger()
        with self._sampling:
            socket = dict(self._socket) if self.counts_sockets else None
            self._socket.clear()
        self.pulls = 0
        return entries, socket

    def _total(self, client: int, direction: Direction, kind: Kind, count: int) -> None:
        if kind is not Kind.HEARTBEAT:
            self._moved[client, direction] += count

    def _by_kind(self, member: Member, direction: Direction, kinds: Mapping[str, int]) -> None:
        for kind, count in kinds.items():
            self.add(member, direction, Kind(kind), count)


def link_rates(entries: Sequence[Entry], linked_s: Mapping[int, float]) -> dict[int, float]:
    """Bytes a second of each client: what it moved in a round, by the seconds that its transfers took."""
    moved: defaultdict[int, int] = defaultdict(int)
    for entry in entries:
        moved[entry.client] += entry.bytes
    return {client: moved[client] / s for client, s in linked_s.items() if s > 0 and moved[client]}
