"""What a client does next: each rule by name, then random news that must never make it work twice or hang."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fedprune.assignment import Assignment
from fedprune.tensor import Version
from fedprune.work import TrainWork
from fedprune_client.session import (
    EVENTS,
    TABLE,
    Abandon,
    Assigned,
    Cancelled,
    Decline,
    Effect,
    Event,
    Failed,
    GoHome,
    Phase,
    Prepare,
    Pull,
    Pulled,
    Receipted,
    RunEnded,
    SessionState,
    Settle,
    Started,
    Submit,
    Work,
    Worked,
    step,
)

BUSY = (Phase.PULLING, Phase.WORKING, Phase.SUBMITTING)


def assignment(number: int, model: int = 0) -> Assignment:
    return Assignment(
        assignment_id=number,
        run_id="r",
        round=model + 1,
        version=Version(model=model),
        deadline_s=60.0,
        work=TrainWork(),
    )


FIRST, SECOND = assignment(1), assignment(2, model=1)


def after(*events: Event) -> SessionState:
    state = SessionState()
    for event in (Started("r"), *events):
        state, _ = step(state, event)
    return state


PULLING = after(Assigned(FIRST, False))
WORKING = after(Assigned(FIRST, False), Pulled(FIRST.version))
SUBMITTING = after(Assigned(FIRST, False), Pulled(FIRST.version), Worked(1))


def test_every_pair_of_phase_and_event_is_decided() -> None:
    assert set(TABLE) == {(phase, event) for phase in Phase for event in EVENTS}


def test_a_round_as_it_should_go() -> None:
    state, prepared = step(SessionState(), Started("r"))
    assert prepared == (Prepare("r"),)
    for event, asked, phase in (
        (Assigned(FIRST, False), Pull(FIRST), Phase.PULLING),
        (Pulled(FIRST.version), Work(FIRST), Phase.WORKING),
        (Worked(1), Submit(FIRST), Phase.SUBMITTING),
        (Receipted(1, True), Settle(1, True), Phase.WAITING),
    ):
        state, effects = step(state, event)
        assert (effects, state.phase) == ((asked,), phase)
    assert (state.assignment, state.held) == (None, FIRST.version)


def test_a_version_that_is_held_is_not_pulled_again() -> None:
    held = after(Assigned(FIRST, False), Pulled(FIRST.version), Worked(1), Receipted(1, True))
    assert step(held, Assigned(assignment(3), False))[1] == (Work(assignment(3)),)


def test_a_sealed_result_is_submitted_and_never_made_again() -> None:
    state, effects = step(after(), Assigned(FIRST, True))
    assert effects == (Submit(FIRST),)
    assert state.phase is Phase.SUBMITTING


@pytest.mark.parametrize("state", [PULLING, WORKING, SUBMITTING], ids=lambda s: s.phase.value)
class TestBusy:
    def test_the_same_assignment_again_changes_nothing(self, state: SessionState) -> None:
        assert step(state, Assigned(FIRST, False)) == (state, ())

    def test_the_same_run_again_changes_nothing(self, state: SessionState) -> None:
        assert step(state, Started("r")) == (state, ())

    def test_another_run_starts_from_nothing(self, state: SessionState) -> None:
        assert step(state, Started("other")) == (SessionState(run_id="other"), (Abandon(1), Prepare("other")))

    def test_another_ones_cancel_is_not_ours(self, state: SessionState) -> None:
        assert step(state, Cancelled(9)) == (state, ())

    def test_what_cannot_be_done_is_declined(self, state: SessionState) -> None:
        now, effects = step(state, Failed(1, "no memory"))
        assert (now.phase, effects) == (Phase.WAITING, (Decline(1, "no memory"),))
        assert step(state, Failed(9, "late news")) == (state, ())

    def test_the_end_of_a_run(self, state: SessionState) -> None:
        assert step(state, RunEnded(True)) == (SessionState(), (Abandon(1),))
        assert step(state, RunEnded(False)) == (SessionState(phase=Phase.GONE), (Abandon(1), GoHome()))


@pytest.mark.parametrize("state", [PULLING, WORKING], ids=lambda s: s.phase.value)
class TestUnfinished:
    def test_another_assignment_takes_the_place(self, state: SessionState) -> None:
        now, effects = step(state, Assigned(SECOND, False))
        assert effects == (Abandon(1), Pull(SECOND))
        assert now.in_hand(2)

    def test_a_cancelled_assignment_is_abandoned(self, state: SessionState) -> None:
        now, effects = step(state, Cancelled(1))
        assert (now.phase, now.assignment, effects) == (Phase.WAITING, None, (Abandon(1),))


def test_what_has_its_receipt_is_not_done_again() -> None:
    """The coordinator sent it again just before the result reached it, and the link delivered both at once."""
    settled = after(Assigned(FIRST, False), Pulled(FIRST.version), Worked(1), Receipted(1, True))
    assert step(settled, Assigned(FIRST, False)) == (settled, ())
    assert step(settled, Assigned(SECOND, False))[0].phase is Phase.PULLING


class TestSubmitting:
    """Whether a sealed result counted must be known before the next one is made."""

    def test_another_assignment_waits_for_the_answer(self) -> None:
        state, effects = step(SUBMITTING, Assigned(SECOND, False))
        assert (effects, state.in_hand(1)) == ((), True)
        now, effects = step(state, Receipted(1, True))
        assert effects == (Settle(1, True), Pull(SECOND))
        assert now.in_hand(2)

    def test_a_refusal_is_an_answer_too(self) -> None:
        state, _ = step(SUBMITTING, Assigned(SECOND, False))
        assert step(state, Failed(1, "refused"))[1] == (Decline(1, "refused"), Pull(SECOND))

    def test_a_cancel_does_not_stop_the_question(self) -> None:
        assert step(SUBMITTING, Cancelled(1)) == (SUBMITTING, ())

    def test_a_waiting_assignment_can_be_cancelled(self) -> None:
        state, _ = step(SUBMITTING, Assigned(SECOND, False))
        assert step(state, Cancelled(9)) == (state, ())
        assert step(state, Cancelled(2)) == (SUBMITTING, ())


def test_news_of_abandoned_work_is_not_mistaken_for_the_new() -> None:
    state, _ = step(WORKING, Assigned(SECOND, False))
    for stale in (Worked(1), Receipted(1, True), Cancelled(1), Failed(1, "stopped")):
        assert step(state, stale) == (state, ())
    submitting = after(Assigned(SECOND, True))
    assert step(submitting, Receipted(1, True)) == (submitting, ())


def test_an_old_pull_that_ends_late_is_no_start_for_the_new_work() -> None:
    state, _ = step(PULLING, Assigned(SECOND, False))
    now, effects = step(state, Pulled(FIRST.version))
    assert (effects, now.phase, now.held) == ((), Phase.PULLING, FIRST.version)
    assert step(now, Pulled(SECOND.version))[1] == (Work(SECOND),)


def test_a_stale_receipt_settles_without_moving_the_residual() -> None:
    assert step(SUBMITTING, Receipted(1, False))[1] == (Settle(1, False),)


def test_who_has_gone_home_does_nothing_more() -> None:
    gone = SessionState(phase=Phase.GONE)
    for event in (Started("r"), Assigned(FIRST, False), RunEnded(True), Pulled(Version())):
        assert step(gone, event) == (gone, ())


class Sessions(RuleBasedStateMachine):
    """Random news, true and stale: one piece of work at a time, each sealed at most once."""

    def __init__(self) -> None:
        super().__init__()
        self.state = SessionState()
        self.sealed: set[int] = set()
        self.effects: list[Effect] = []

    def feed(self, event: Event) -> None:
        self.state, effects = step(self.state, event)
        self.effects.extend(effects)

    @rule(run=st.sampled_from(["r", "r", "r", "other"]))
    def start(self, run: str) -> None:
        if run != self.state.run_id and self.state.phase is not Phase.GONE:
            self.sealed.clear()
        self.feed(Started(run))

    @rule(number=st.integers(1, 4))
    def assign(self, number: int) -> None:
        self.feed(Assigned(assignment(number, model=number // 2), number in self.sealed))

    @rule(number=st.integers(1, 4))
    def seal(self, number: int) -> None:
        if self.state.phase is Phase.WORKING and self.state.in_hand(number):
            assert number not in self.sealed, "trained again what was sealed"
            self.sealed.add(number)
        self.feed(Worked(number))

    @rule(model=st.integers(0, 2))
    def pulled(self, model: int) -> None:
        self.feed(Pulled(Version(model=model)))

    @rule(number=st.integers(1, 4), news=st.sampled_from(["failed", "receipt", "stale", "cancel"]))
    def news(self, number: int, news: str) -> None:
        self.feed(
            {
                "failed": Failed(number, "x"),
                "receipt": Receipted(number, True),
                "stale": Receipted(number, False),
                "cancel": Cancelled(number),
            }[news]
        )

    @rule(more=st.booleans())
    def end(self, more: bool) -> None:
        self.feed(RunEnded(more))
        self.sealed.clear()

    @invariant()
    def the_phase_says_what_is_in_hand(self) -> None:
        assert (self.state.phase in BUSY) == (self.state.assignment is not None)

    @invariant()
    def work_is_done_on_the_version_it_names(self) -> None:
        if self.state.phase is Phase.WORKING:
            assert self.state.assignment is not None
            assert self.state.held == self.state.assignment.version

    @invariant()
    def nothing_is_in_hand_without_its_effect(self) -> None:
        """Every busy phase was entered by the effect that will end it."""
        doing = {Phase.PULLING: Pull, Phase.WORKING: Work, Phase.SUBMITTING: Submit}.get(self.state.phase)
        if doing is not None:
            last = [e for e in self.effects if isinstance(e, (Pull, Work, Submit))][-1]
            assert last == doing(self.state.assignment)  # type: ignore[arg-type]  # busy: there is one


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
