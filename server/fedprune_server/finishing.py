"""What a run does when nobody has to be waited for any more: it closes the round, the measuring or the evaluation.

The effects of `rounds.py` that begin it are carried out here, in the background; the event that each of them ends with
goes back to the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fedprune_server import events
from fedprune_server.background import Background
from fedprune_server.course import Course
from fedprune_server.deciding import Decision
from fedprune_server.desk import Desk
from fedprune_server.outgoing import Outgoing
from fedprune_server.settling import Settling


@dataclass(slots=True, kw_only=True)
class Finishing:
    """`course` gives the run's state as it is now, `dispatch` takes what happened."""

    settling: Settling
    desk: Desk
    outgoing: Outgoing
    background: Background
    course: Callable[[], Course]
    dispatch: Callable[[events.Event], None]
    _tidying: asyncio.Task[None] | None = None

    def close_round(self, effect: events.CloseRound) -> None:
        """Make the next version of what was accepted."""
        self.desk.cancel(effect.missing, f"round {effect.round} is closed")
        self.background.spawn_guarded(self._fold(effect.round))

    def drop_round(self, effect: events.DropRound) -> None:
        """Close a round of which nothing comes."""
        accounts = self.settling.accounts
        accounts.sample_sockets()
        entries, _ = accounts.close_round()
        self.settling.store.close_round(self.settling.run_id, effect.round, entries=entries)

    async def _fold(self, round_: int) -> None:
        what = "updates" if round_ else "scores"
        self.outgoing.say(f"round {round_}: aggregating {len(self.course().accepted)} {what}")
        self.tidy()
        await self._tidied()
        # The receipts go out first: nobody has to wait for the next version to hear that its result counts.
        await asyncio.sleep(0)
        closed = await self.settling.settle(round_, self.course())
        later = self.course().rules.evaluates(round_) or closed.judge or closed.remeasure
        self.dispatch(events.Committed(judge=closed.judge, remeasure=closed.remeasure))
        # After the next round's work has gone out: nobody has to wait for a line in a file.
        await asyncio.sleep(0)
        if round_ and not later:
            self.settling.output.publish(round_)

    def tidy(self) -> None:
        """Delete what nobody needs any more: when the clients have what they work on, for deleting large files takes from
        sending them; else before the next version is made."""
        if self.settling.untidy and (self._tidying is None or self._tidying.done()):
            self._tidying = self.background.spawn_guarded(self.settling.tidy())

    async def _tidied(self) -> None:
        if self._tidying is not None:
            await self._tidying

    def close_reestimation(self, effect: events.CloseReestimation) -> None:
        """Put the statistics that clients measured into the model."""
        self.background.spawn_guarded(self._remeasure(effect.round))

    async def _remeasure(self, round_: int) -> None:
        await self._tidied()
        await self.settling.remeasure(round_)
        if not self.course().unevaluated:
            self.settling.output.publish(round_)
        self.dispatch(events.Remeasured())

    def close_evaluation(self, effect: events.CloseEvaluation) -> None:
        """Average what the clients found, and decide about a pruning step on approval."""
        self.background.spawn_guarded(self._decide(effect.round))

    async def _decide(self, round_: int) -> None:
        await self._tidied()
        await self._enter(round_, await self.settling.decide(round_))
        self.settling.output.publish(round_)
        self.dispatch(events.Decided())

    async def _enter(self, round_: int, decision: Decision) -> None:
        if decision.undone is not None:
            self.outgoing.say(f"round {round_}: the pruning step is undone; going on from the model before it")
        await self.settling.enter(round_, decision)

    async def leave_nothing_on_approval(self) -> None:
        """The run ends: a pruning step that nobody has approved is undone."""
        await self._tidied()
        decision = await asyncio.to_thread(self.settling.deciding.end)
        if decision.undone is not None:
            await self._enter(decision.undone.record.round, decision)


FINISHING: dict[type[events.Effect], Callable[[Finishing, Any], None]] = {
    events.CloseRound: Finishing.close_round,
    events.DropRound: Finishing.drop_round,
    events.CloseReestimation: Finishing.close_reestimation,
    events.CloseEvaluation: Finishing.close_evaluation,
}
