"""One run, carried out: the hands of `rounds.py`.

Events come from the service and from timers; each effect of the table has one method, here, in `outgoing.py` or in
`finishing.py`. Whatever blocks runs in a thread and comes back as another event. Nothing is decided in this file.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fedprune import wire
from fedprune.assignment import Assignment
from fedprune.config import RunConfig
from fedprune.errors import FedpruneError, StoreError
from fedprune.parts import Part
from fedprune.tensor import Schema, Version
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_server import events, rounds
from fedprune_server.background import Background
from fedprune_server.course import Course, Phase
from fedprune_server.desk import Desk
from fedprune_server.finishing import FINISHING, Finishing
from fedprune_server.intake import Receiving
from fedprune_server.members import Member, Members
from fedprune_server.onlookers import Begun
from fedprune_server.outgoing import OUTGOING, Outgoing
from fedprune_server.settling import Settling
from fedprune_server.store import AssignmentRecord, ReceiptRecord, RunState, Work
from fedprune_server.timers import Timers

log = logging.getLogger("fedprune.run")


class Run:
    """A run in progress. Make it, `resume` or `begin` it, then feed it with events until `ended` is set."""

    def __init__(
        self,
        *,
        config: RunConfig,
        members: Members,
        settling: Settling,
        desk: Desk,
        state: Course,
        more: bool,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.config = config
        self.run_id = settling.run_id
        self.store = settling.store
        self.accounts = settling.accounts
        self.at = settling.at
        self.state = state
        self.ended: asyncio.Future[events.EndRun] = loop.create_future()
        self.intake = Receiving(
            store=self.store,
            run_id=self.run_id,
            max_bytes=settling.closing.incoming.max_update_bytes,
            check=self._check,
            on_accepted=self._accepted,
            on_refused=self._refused,
            on_broken=self.look_at_store,
            at=self.at,
            recent=desk.record,
        )
        self._settling = settling
        self._clock = settling.clock
        self._versions = settling.versions
        self._output = settling.output
        self._desk = desk
        self._outgoing = Outgoing(config=config, members=members, settling=settling, desk=desk, more=more)
        self._timers = Timers(self._ring)
        self._background = Background(halt=self._halt, broken=self._broken, crashed=self._crashed)
        self._finishing = Finishing(
            settling=settling,
            desk=desk,
            outgoing=self._outgoing,
            background=self._background,
            course=lambda: self.state,
            dispatch=self.dispatch,
        )

    # what the process asks ------------------------------------------------------------------------------------

    def resume(self, assigned: Mapping[int, Assignment]) -> None:
        """Go on with what an earlier process had assigned."""
        self._desk.take_over(assigned)
        levels = {mask.version: density for density, mask in self._versions.latest.levels.items()}
        held = {client: given.version.mask for client, given in assigned.items()}
        self._settling.placing.take_over({c: levels.get(v, 1.0) for c, v in held.items() if levels})
        self.accounts.round = self.state.round
        self._carry_out(rounds.resume(self.state))

    def density_of(self, client: int) -> float | None:
        """What a client holds, where clients hold a part of the model each."""
        placing = self._settling.placing
        return placing.held(client, most=self._versions.latest.mask.density) if client in placing.clients else None

    def dispatch(self, event: events.Event) -> None:
        """Let something happen to the run."""
        self._carry_out(rounds.step(self.state, event))

    def _carry_out(self, step: rounds.Step) -> None:
        self.state, effects = step
        if self.state.phase is Phase.GATHERING:
            self._clock.rest()
        for effect in effects:
            try:
                self._do(effect)
            except StoreError as error:
                self._halt(error)
                return
            except FedpruneError as error:
                log.error(str(error))
                self._broken(error)
                return

    def _do(self, effect: events.Effect) -> None:
        if type(effect) in OUTGOING:
            OUTGOING[type(effect)](self._outgoing, self.state, effect)
        elif type(effect) in FINISHING:
            FINISHING[type(effect)](self._finishing, effect)
        else:
            HANDS[type(effect)](self, effect)

    def _halt(self, error: StoreError) -> None:
        """The disk or another coordinator stands in the way: end the process, leave the run to the next one.

        Clients are told nothing: they look for a coordinator until one is there again."""
        log.error(str(error))
        self._timers.clear_all()
        if not self.ended.done():
            self.ended.set_exception(error)

    def _broken(self, error: FedpruneError) -> None:
        """What goes wrong behind the run ends it."""
        self.dispatch(events.Broken(str(error)))

    def _crashed(self, error: BaseException) -> None:
        """A bug must end the run loudly, not leave it waiting for ever."""
        if not self.ended.done():
            self.ended.set_exception(error)

    def look_at_store(self) -> None:
        """Halt if the store has ended; an error that only one client has met does not end it."""
        try:
            self.store.check_usable()
        except StoreError as error:
            self._halt(error)

    async def suspend(self) -> None:
        """Let what blocks (a fold, a commit) be done, and begin nothing more."""
        self._timers.clear_all()
        await self._background.over()
        self._timers.clear_all()

    def conclude(self, outcome: events.Outcome) -> None:
        """Mark the run as done: the last thing that happens to it. Until then a coordinator that is killed takes it
        up again, to tell the clients that have not heard. Blocks: call it in a thread."""
        self.at("farewell-over")
        self._output.record(self.store, self.run_id)
        self.store.set_run_state(self.run_id, RunState(outcome))

    @property
    def version(self) -> Version:
        """The latest committed version."""
        return self._versions.latest.version

    def begun(self, folder: Path, schema: Schema) -> Begun:
        """What onlookers are told of this run when it begins or goes on."""
        done = self._output.published(unless=self.state.round if self.state.unevaluated else None)
        return Begun(run_id=self.run_id, config=self.config, folder=folder, schema=schema, done=done)

    @property
    def waiting_for(self) -> str:
        """What the run waits for, in words."""
        return self._outgoing.waiting_for

    @property
    def untold(self) -> frozenset[int]:
        """The clients of this run that have not heard that it is over."""
        return self._outgoing.untold(self.state)

    def parts(self, held: Version | None, want: Version) -> tuple[Part, ...]:
        """What to send to a client that holds one version and wants another."""
        return self._versions.parts(held, want)

    def awaits(self, member: Member) -> bool:
        """Whether this client has work in hand that the open round waits for."""
        return self.state.waits and member.index in self.state.pending

    def handed_out(self) -> None:
        """A client has all of the version that it is to work on."""
        self.accounts.pulls += 1
        if self.state.waits and self.accounts.pulls >= len(self.state.cohort):
            self._finishing.tidy()

    def failed(self, member: Member, assignment_id: int, reason: str) -> None:
        """A client says that it cannot do what it was assigned."""
        if self._desk.holds(member.index, assignment_id):
            self.dispatch(events.Declined(member.index, reason))

    # what the intake reports ----------------------------------------------------------------------------------

    def _check(self, record: AssignmentRecord, begin: pb.Begin, data: memoryview) -> None:
        self._settling.closing.incoming.check(
            record,
            wire.version(begin.version),
            data,
            sha256=begin.sha256,
            party=f"client {record.client}",
            examples=begin.examples,
        )

    def _accepted(self, member: Member, receipt: ReceiptRecord, data: memoryview) -> None:
        log.info(
            "%s accepted: %d bytes, %d examples", receipt.kind.value, receipt.size, receipt.examples, extra=member.names
        )
        member.last_seen = time.monotonic()
        if receipt.size:
            self.accounts.received(member, data)
        if member.connected:
            member.holds = self._desk.version_of(member.index, receipt.assignment_id)
        if self._awaits(receipt.round, receipt.kind):
            self._clock.heard(member.index, receipt.work_s)
            self.dispatch(events.Accepted(member.index))

    def _refused(self, member: Member, record: AssignmentRecord, reason: str) -> None:
        if self._awaits(record.round, record.kind):
            self.dispatch(events.Declined(member.index, reason))

    def _awaits(self, round_: int, kind: Work) -> bool:
        """Whether this is what the open round waits for: training that comes late is no evaluation."""
        return round_ == self.state.round and kind is AWAITED.get(self.state.phase)

    # effects --------------------------------------------------------------------------------------------------

    def _set_timer(self, effect: events.SetTimer) -> None:
        self._timers.set(effect.name, effect.seconds, effect.event)

    def _ring(self, event: events.Event, is_due: Callable[[], bool]) -> None:
        """A timer is due. In a task, so that a bug behind it is not lost in the event loop's log. What is being accepted
        comes first: it may close the round, and its deadline is not the next one's."""

        async def happen() -> None:
            await self.intake.idle()
            if is_due():
                self.dispatch(event)

        self._background.spawn(happen())

    def _clear_timer(self, effect: events.ClearTimer) -> None:
        self._timers.clear(effect.name)

    def _warn(self, effect: events.Warn) -> None:
        self._settling.warn(effect.text)

    def _end_run(self, effect: events.EndRun) -> None:
        self._timers.clear_all()
        self._background.spawn(self._finish(effect))

    async def _finish(self, effect: events.EndRun) -> None:
        self.accounts.sample_sockets()
        entries, _ = self.accounts.close_round()
        try:
            await self._finishing.leave_nothing_on_approval()
            await asyncio.to_thread(self._settling.write_down, effect, entries)
        except StoreError as error:
            self._halt(error)
            return
        self.at("run-written")
        self._outgoing.farewell(effect)
        self.at("run-told")
        if not self.ended.done():
            self.ended.set_result(effect)


AWAITED = {
    Phase.SCORING: Work.SCORE,
    Phase.TRAINING: Work.TRAIN,
    Phase.REESTIMATING: Work.REESTIMATE,
    Phase.EVALUATING: Work.EVALUATE,
}

HANDS: dict[type[events.Effect], Callable[[Run, Any], None]] = {
    events.SetTimer: Run._set_timer,
    events.ClearTimer: Run._clear_timer,
    events.Warn: Run._warn,
    events.EndRun: Run._end_run,
}
