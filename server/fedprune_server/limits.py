"""What one client, and all of them together, may take of the coordinator: calls, uploads, bytes at rest and a second.

Checked before anything is buffered, so that memory is bounded by the run file and not by who calls: at any time at
most `max_calls` calls are open, each with at most one message in our hands. Calls and bytes are a debt until something
comes of them, a receipt or a whole download: who runs up too much of it is slowed down, and nobody else. Plain
arithmetic without a clock: `now_s` is an argument, monotonic and in seconds.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from fedprune.errors import BusyError, LimitError
from fedprune.network_section import NetworkSection

# A transfer must move that many bytes within `stall_s`, so that a trickle is no progress.
PROGRESS_BYTES = 1 << 14
# Messages on a work stream: heartbeats, progress, failures.
MESSAGES_PER_S, MESSAGES_AT_ONCE = 20.0, 100.0
# What may be sent at once before a limit on bytes a second bites.
BURST_S = 1.0
# What a client may owe beside a download and an upload of the largest size, and what a call costs beside its bytes:
# sixteen of them are free, whatever the model's size. Breaks of an honest line cost a chunk each, and a receipt settles
# everything.
DEBT_BYTES, CALL_BYTES = 4 << 20, 1 << 18
# Of its calls a client is forgiven so many a second at least, however many others are in debt: a thousand honest ones may
# look for their coordinator at a time.
CALLS_PER_S = 0.1
# For so long a debtor who was slowed down takes part in what is forgiven, which is for all together: who is the only one
# that comes too late hardly feels it.
DEBTOR_S = 30.0
# Who would have to wait longer than that is sent away: an open call costs more than a refused one.
LONGEST_WAIT_S = 4.0
# Debtors that are remembered.
MOST_DEBTORS = 4096


@dataclass(slots=True)
class TokenBucket:
    """`rate` units a second, `burst` of them at once; rate 0 has no limit."""

    rate: float
    burst: float
    _level: float = 0.0
    _seen_s: float | None = None

    def take(self, count: float, now_s: float) -> float:
        """Take `count` and give the seconds to wait before going on. What was taken too early is waited for."""
        if self.rate == 0:
            return 0.0
        since = now_s - self._seen_s if self._seen_s is not None else 0.0
        self._level = max(0.0, self._level - since * self.rate) + count
        self._seen_s = now_s
        return max(0.0, self._level - self.burst) / self.rate

    def spend(self) -> None:
        """Nothing is free any more, until time gives it back."""
        self._level = max(self._level, self.burst)


@dataclass(slots=True)
class Progress:
    """A watchdog of one transfer: `deadline_s` moves on with each `PROGRESS_BYTES` that came, not with each message."""

    stall_s: float
    deadline_s: float
    _came: int = 0

    def heard(self, count: int, now_s: float) -> None:
        """Bytes came."""
        self._came += count
        if self._came >= PROGRESS_BYTES:
            self._came = 0
            self.deadline_s = now_s + self.stall_s


@dataclass(slots=True)
class _Debt:
    """What has come to nothing so far, in bytes moved and in calls, and the last assignment whose receipt settled it."""

    settled_by: int = 0
    moved: TokenBucket = field(default_factory=lambda: TokenBucket(0.0, 0.0))
    calls: TokenBucket = field(default_factory=lambda: TokenBucket(0.0, 0.0))


@dataclass(slots=True, eq=False)
class _Coming:
    """An upload under way, of so many announced bytes."""

    size: int


@dataclass(slots=True)
class Limits:
    """The limits of one process and what is taken of them."""

    network: NetworkSection
    # The largest update of an honest client.
    max_update_bytes: int = 0
    _calls: Counter[str] = field(default_factory=Counter)
    # One for each client: its newest. The store lets no older one write.
    _uploads: dict[str, _Coming] = field(default_factory=dict)
    _rates: dict[str, TokenBucket] = field(default_factory=dict)
    _debts: OrderedDict[str, _Debt] = field(default_factory=OrderedDict)
    # Who was last slowed down when, the latest at the end.
    _slowed: OrderedDict[str, float] = field(default_factory=OrderedDict)
    _total: TokenBucket = field(init=False)

    def __post_init__(self) -> None:
        self._total = _bytes_per_second(self.network.max_bytes_per_s)

    @contextmanager
    def call(self, identity: str) -> Iterator[None]:
        """A call is open. Raises `BusyError` when there are too many, of this client or of all."""
        limits = self.network
        if self._calls[identity] >= limits.max_client_calls:
            raise _busy("too many calls at a time", identity, limits.max_client_calls)
        if self._calls.total() >= limits.max_calls:
            raise _busy("the coordinator has too many calls", identity, limits.max_calls)
        with _counted(self._calls, identity):
            yield

    @contextmanager
    def upload(self, identity: str, size: int) -> Iterator[None]:
        """An upload of `size` bytes is coming in. Raises `BusyError` when there is no room for it now."""
        limits = self.network
        others = [coming.size for who, coming in self._uploads.items() if who != identity]
        if len(others) >= limits.max_uploads:
            raise _busy("too many uploads at a time", identity, limits.max_uploads)
        if sum(others) + size > limits.max_staged_bytes:
            raise _busy("too many bytes are coming in", identity, limits.max_staged_bytes)
        mine = self._uploads[identity] = _Coming(size)
        try:
            yield
        finally:
            if self._uploads.get(identity) is mine:
                del self._uploads[identity]

    def pause_s(self, identity: str, count: int, now_s: float) -> float:
        """How long to wait after `count` bytes of this client, so that neither it nor all of them are too fast."""
        bucket = self._rates.get(identity)
        if bucket is None:
            bucket = self._rates[identity] = _bytes_per_second(self.network.max_client_bytes_per_s)
        return max(bucket.take(count, now_s), self._total.take(count, now_s))

    def owe_s(self, identity: str, count: float, now_s: float, *, awaited: bool = True) -> float:
        """How long to wait after `count` bytes of which nothing has come yet. What nobody waits for (its round is closed,
        its client has declined) has no credit: others go first."""
        credit = DEBT_BYTES + 2 * self.max_update_bytes if awaited else 0.0
        return self._owe_s(identity, self._debt(identity, now_s).moved, count, credit, now_s)

    def call_s(self, identity: str, now_s: float) -> float:
        """How long to hold a call of which nothing has come yet."""
        return self._late_s(identity, self._debt(identity, now_s).calls, CALL_BYTES, now_s)

    def spend(self, identity: str, now_s: float) -> None:
        """No call of this client is free any more, until it has a receipt: it was hung up on."""
        calls = self._debt(identity, now_s).calls
        self._late_s(identity, calls, 0, now_s)
        calls.spend()

    def _late_s(self, identity: str, calls: TokenBucket, count: float, now_s: float, *, awaited: bool = True) -> float:
        credit = DEBT_BYTES if awaited else 0.0
        return self._owe_s(identity, calls, count, credit, now_s, at_least=CALLS_PER_S * CALL_BYTES)

    def _debt(self, identity: str, now_s: float) -> _Debt:
        debt = self._debts.setdefault(identity, _Debt())
        self._debts.move_to_end(identity)
        if len(self._debts) > MOST_DEBTORS:
            self._debts.popitem(last=False)
        while self._slowed and next(iter(self._slowed.values())) < now_s - DEBTOR_S:
            self._slowed.popitem(last=False)
        return debt

    def _owe_s(
        self, identity: str, bucket: TokenBucket, count: float, credit: float, now_s: float, at_least: float = 0.0
    ) -> float:
        lost = self.network.max_lost_bytes_per_s
        bucket.rate = lost and max(at_least, lost / max(1, len(self._slowed)))
        bucket.burst = credit
        wait_s = bucket.take(count, now_s)
        if wait_s > 0:
            self._slowed[identity] = now_s
            self._slowed.move_to_end(identity)
        return wait_s

    def check_debt(self, identity: str, now_s: float, *, awaited: bool = True) -> None:
        """Raise `BusyError` for a client that is so deep in debt that its calls would only wait."""
        debt = self._debts.get(identity)
        if debt is None:
            return
        calls_s = self._late_s(identity, debt.calls, 0, now_s, awaited=awaited)
        if max(calls_s, self.owe_s(identity, 0, now_s, awaited=awaited)) > LONGEST_WAIT_S:
            raise BusyError("too much has come to nothing", party=f"client {identity}", next_step="Try again later")

    def settle(self, identity: str, assignment_id: int) -> None:
        """A result has its receipt. The same receipt given again settles nothing."""
        debt = self._debts.get(identity)
        if debt is not None and assignment_id > debt.settled_by:
            self._debts[identity] = _Debt(assignment_id)
            self._slowed.pop(identity, None)

    def progress(self, now_s: float) -> Progress:
        """A watchdog for a transfer that begins now."""
        return Progress(self.network.stall_s, now_s + self.network.stall_s)

    def check_client_count(self, known: int, *, party: str) -> None:
        """Raise `LimitError` when one more client is too many."""
        if known >= self.network.max_clients:
            raise LimitError(
                "no more clients can join",
                party=party,
                expected=f"at most {self.network.max_clients}",
                next_step="Raise [network] max_clients",
            )


def messages() -> TokenBucket:
    """How fast a client may talk on its work stream."""
    return TokenBucket(MESSAGES_PER_S, MESSAGES_AT_ONCE)


def _bytes_per_second(rate: float) -> TokenBucket:
    return TokenBucket(rate, rate * BURST_S)


def _busy(problem: str, identity: str, most: int) -> BusyError:
    return BusyError(problem, party=f"client {identity}", expected=f"at most {most}", next_step="Try again later")


@contextmanager
def _counted(counter: Counter[str], identity: str) -> Iterator[None]:
    counter[identity] += 1
    try:
        yield
    finally:
        counter[identity] -= 1
        if not counter[identity]:
            del counter[identity]
