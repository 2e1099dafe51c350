"""What follows when a round is closed: it is folded, committed, judged and written down.

What blocks runs in threads, one round at a time. Which event comes of it is the run's business.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from fedprune.ledger import Entry
from fedprune_server import events
from fedprune_server.accounting import Accounts, link_rates
from fedprune_server.autoplan import Choice
from fedprune_server.closing import Closed, Closing
from fedprune_server.course import Course
from fedprune_server.deciding import Deciding, Decision
from fedprune_server.output import Output
from fedprune_server.placing import Placing
from fedprune_server.rows import residual_norm, stall_warning
from fedprune_server.store import Store
from fedprune_server.versions import Versions

log = logging.getLogger("fedprune.run")

# Garbage that may lie about, so that rounds of small models need not stop for it.
TIDY_BYTES = 16 << 20
# A model up to here is encoded, or one update of it is added, in a millisecond or two; and so many updates.
LIGHT_BYTES, FEW = 1 << 18, 16


@dataclass(slots=True)
class RoundClock:
    """When the open round began, and the seconds that each client spent in it on other things than its work."""

    opened_s: float = field(default_factory=time.monotonic)
    linked_s: dict[int, float] = field(default_factory=dict)
    # When the last round was accounted for, if the next one follows at once.
    closed_s: float | None = None

    def open(self) -> None:
        """A round begins. What comes between two rounds, such as the commit, belongs to the second one."""
        self.opened_s = time.monotonic() if self.closed_s is None else self.closed_s
        self.linked_s.clear()

    def heard(self, client: int, work_s: float) -> None:
        """A client's result is here, for which it worked so long."""
        self.linked_s[client] = time.monotonic() - self.opened_s - work_s

    def close(self) -> float:
        """The round is accounted for; gives its seconds."""
        self.closed_s = time.monotonic()
        return self.closed_s - self.opened_s

    def rest(self) -> None:
        """Something other than the next round follows."""
        self.closed_s = None


@dataclass(slots=True, kw_only=True)
class Settling:
    """The rounds of one run, settled one after another."""

    run_id: str
    store: Store
    versions: Versions
    closing: Closing
    deciding: Deciding
    accounts: Accounts
    output: Output
    placing: Placing
    choose: Callable[[int], Choice | None]
    say: Callable[[str], None]
    at: Callable[[str], None]
    # Nothing is garbage: what clients sent is kept.
    keep_updates: bool = False
    clock: RoundClock = field(default_factory=RoundClock)
    _warned_of_stall: bool = False
    # Bytes that were kept since the last tidying: all garbage sooner or later.
    _untidy_bytes: int = 0

    async def settle(self, round_: int, course: Course) -> Closed:
        """Fold what was accepted, and commit what comes of it: a version, or before round 1 the first mask."""
        closed = await self._closed(round_, course)
        self.at("round-folded")
        await (self._commit(round_, course, closed) if round_ else self._commit_mask(closed))
        self._untidy_bytes += sum(receipt.size for receipt in closed.receipts)
        return closed

    async def _closed(self, round_: int, course: Course) -> Closed:
        if self._is_light(course) and not self.closing.evaluates(round_):
            self.accounts.sample_sockets()
            return self.closing.close(round_)
        sampling = asyncio.to_thread(self.accounts.sample_sockets)
        closed, _ = await asyncio.gather(asyncio.to_thread(self.closing.close, round_), sampling)
        return closed

    def _is_light(self, course: Course) -> bool:
        """Whether what the round takes here is done sooner than threads have taken turns at it: some milliseconds."""
        return self.versions.schema.dense_bytes <= LIGHT_BYTES and len(course.cohort) <= FEW

    async def remeasure(self, round_: int) -> None:
        """Commit the statistics that clients measured under the new mask; the coordinator's own evaluation has waited for
        them."""
        found = await asyncio.to_thread(self.closing.remeasure, round_)
        self.at("statistics-folded")
        row = self.output.remeasured(round_, found)
        if found.prepared is None:
            self.warn(f"round {round_}: no client measured the statistics of the model under its new mask")
            self.store.put_report(self.run_id, round_, row.to_json())
            return
        await asyncio.to_thread(self.store.commit_version, found.prepared.record, report_json=row.to_json())
        self.versions.adopt(found.prepared)
        self.at("version-adopted")

    async def decide(self, round_: int) -> Decision:
        """What the evaluations of a round say about the pruning step on approval."""
        decision = await asyncio.to_thread(self.deciding.decide, round_)
        self.at("evaluation-closed")
        return decision

    async def enter(self, round_: int, decision: Decision) -> None:
        """Into the report, and where a pruning step is undone, into the versions."""
        row = self.output.decided(round_, decision)
        if decision.undone is None:
            self.store.put_report(self.run_id, round_, row.to_json())
            return
        await asyncio.to_thread(self.store.commit_version, decision.undone.record, report_json=row.to_json())
        self.versions.adopt(decision.undone)
        self.at("version-adopted")
        self.output.keep_mask(decision.undone.mask)

    def write_down(self, effect: events.EndRun, entries: list[Entry]) -> None:
        """The end of the run. Blocks: call it in a thread."""
        self.store.append_entries(self.run_id, entries)
        self.store.collect_garbage(self.store.blobs.digests() if self.keep_updates else ())
        control = self.versions.control
        outcome = control.outcome if control else ""
        density = self.versions.latest.mask.density
        self.output.ended(
            effect,
            self.versions.latest,
            self.store.entries(self.run_id),
            pruning_outcome=outcome,
            client_densities={str(c): self.placing.held(c, most=density) for c in self.placing.clients},
        )

    @property
    def untidy(self) -> bool:
        """Whether so much garbage lies about that somebody should `tidy`."""
        return self._untidy_bytes > TIDY_BYTES and not self.keep_updates

    async def tidy(self) -> None:
        """Delete what no version needs any more, while the clients work."""
        self._untidy_bytes = 0
        await asyncio.to_thread(self.store.collect_garbage, self.versions.kept)

    def warn(self, text: str) -> None:
        """For the people who run it: in the log, on the terminal, in the report."""
        log.warning(text)
        self.say(text)
        self.output.warn(text)

    async def _commit(self, round_: int, course: Course, closed: Closed) -> None:
        self._warn_of(round_, closed)
        transfers = self.accounts.transfers(updates=len(closed.receipts))
        entries, socket = self.accounts.close_round()
        self._measure(closed, entries)
        row = self.output.round(
            round_,
            closed=closed,
            cohort=course.cohort,
            entries=entries,
            socket=socket,
            seconds=self.clock.close(),
            transfers=transfers,
            evaluation_s=closed.evaluation_s,
            choice=self.choose(round_),
            link_bytes_per_s=min(self.accounts.links.values(), default=None),
        )
        # Receipts are synced. Where everyone has one, nobody can come in addition, and the same version would be made
        # of them again after a power cut.
        final = course.accepted == frozenset(course.cohort)
        record, text = closed.prepared.record, row.to_json()
        commit = partial(self.store.commit_version, record, report_json=text, entries=entries, synced=not final)
        if final and self._is_light(course):
            commit()
        else:
            await asyncio.to_thread(commit)
        self.versions.adopt(closed.prepared)
        self.at("version-adopted")
        if closed.proposal:
            self.output.keep_mask(closed.prepared.mask)

    async def _commit_mask(self, closed: Closed) -> None:
        """The mask that was chosen before anybody trained; its bytes belong to the first round."""
        await asyncio.to_thread(self.store.commit_version, closed.prepared.record)
        self.versions.adopt(closed.prepared)
        self.at("version-adopted")
        self.output.keep_mask(closed.prepared.mask)
        if closed.proposal is not None:
            self.output.explain_first(closed.proposal)

    def _warn_of(self, round_: int, closed: Closed) -> None:
        stalling = stall_warning(residual_norm(closed), closed.prepared.arrays)
        if stalling is not None and not self._warned_of_stall:
            self._warned_of_stall = True
            self.warn(f"round {round_}: {stalling}")
        for warning in closed.warnings:
            self.warn(f"round {round_}: {warning}")

    def _measure(self, closed: Closed, entries: list[Entry]) -> None:
        """How fast each client's link was, and its work."""
        self.accounts.links = link_rates(entries, self.clock.linked_s)
        for receipt in closed.receipts:
            rate = self.accounts.links.get(receipt.client)
            self.placing.measured(receipt.client, work_s=receipt.work_s, bytes_per_s=rate)
