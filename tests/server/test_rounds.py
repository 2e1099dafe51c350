"""The life of a run: each rule by name, then random lives that must never get stuck and never count twice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fedprune_server import rounds
from fedprune_server.course import Course, Phase, Rules, choose_cohort
from fedprune_server.events import (
    EVENTS,
    Accepted,
    Broken,
    ClearTimer,
    CloseEvaluation,
    CloseReestimation,
    CloseRound,
    Committed,
    DeadlinePassed,
    Decided,
    Declined,
    Dismiss,
    DropRound,
    Effect,
    EndRun,
    Event,
    ExtendRound,
    Freeze,
    GraceOver,
    Greet,
    Joined,
    Left,
    OpenEvaluation,
    OpenReestimation,
    OpenRound,
    OpenScoring,
    Remeasured,
    Say,
    SetTimer,
    Settled,
    StopRequested,
    Warn,
)
from fedprune_server.rounds import IGNORED, TABLE, step


class Play:
    """A run whose hands only remember: timers that are set, and every effect so far."""

    def __init__(self, **rules: Any) -> None:
        self.state = Course(rules=Rules(**({"rounds": 3, "expect": 2} | rules)))
        self.timers: dict[str, SetTimer] = {}
        self.effects: list[Effect] = []

    def feed(self, *happened: Event) -> list[Effect]:
        """Let things happen one after another; gives what they asked for."""
        before = len(self.effects)
        for event in happened:
            self.take(step(self.state, event))
        return self.effects[before:]

    def take(self, taken: rounds.Step) -> None:
        self.state, effects = taken
        for effect in effects:
            self.effects.append(effect)
            if isinstance(effect, SetTimer):
                self.timers[effect.name] = effect
            elif isinstance(effect, ClearTimer):
                self.timers.pop(effect.name, None)
            elif isinstance(effect, EndRun):
                self.timers.clear()

    def fire(self, name: str) -> list[Effect]:
        """The timer of this name runs out."""
        return self.feed(self.timers.pop(name).event)

    def of(self, kind: type[Effect]) -> list[Any]:
        return [e for e in self.effects if isinstance(e, kind)]


def training(clients: int = 2, **rules: Any) -> Play:
    """A run in its first round."""
    play = Play(expect=clients, **rules)
    play.feed(*(Joined(c) for c in range(clients)))
    assert play.state.phase is Phase.TRAINING
    return play


def scoring(clients: int, **rules: Any) -> Play:
    """A run whose clients score before they train."""
    play = Play(expect=clients, **rules)
    play.feed(*(Joined(c) for c in range(clients)))
    assert play.state.phase is Phase.SCORING
    return play


def test_every_pair_of_phase_and_event_is_decided() -> None:
    pairs = {(phase, event) for phase in Phase for event in EVENTS}
    assert set(TABLE) | IGNORED == pairs
    assert not set(TABLE) & IGNORED
    assert all((Phase.ENDED, event) in IGNORED for event in EVENTS if event is not Joined)


class TestGathering:
    def test_expected_clients_freeze_the_shards(self) -> None:
        play = Play(expect=2)
        assert play.feed(Joined(4)) == [
            ClearTimer("grace-4"),
            Greet(4, True, False),
            Say("waiting for clients: 1 connected, need 2"),
        ]
        assert Freeze((1, 4)) in play.feed(Joined(1))
        assert play.of(OpenRound) == [OpenRound(1, (1, 4))]
        assert set(play.timers) == {"deadline"}

    def test_without_a_number_quiet_closes_the_door(self) -> None:
        play = Play(expect=0, settle_s=7.0)
        play.feed(Joined(0))
        assert play.timers["settle"].seconds == 7.0
        play.feed(Joined(1))
        play.fire("settle")
        assert play.of(Freeze) == [Freeze((0, 1))]

    def test_too_few_keep_waiting_and_say_so(self) -> None:
        play = Play(expect=0, min_clients=2)
        play.feed(Joined(0))
        assert play.fire("settle") == [Say("waiting for clients: 1 connected, need 2")]
        play.feed(Joined(1))
        play.fire("settle")
        assert play.state.phase is Phase.TRAINING

    def test_who_left_before_the_door_closed_gets_no_shard(self) -> None:
        play = Play(expect=2)
        play.feed(Joined(0), Left(0), Joined(1), Joined(2))
        assert play.of(Freeze) == [Freeze((1, 2))]


class TestCohort:
    def test_the_share_of_the_clients_works_and_the_same_ones_after_a_restart(self) -> None:
        rules = Rules(rounds=3, share=0.5, seed=9)
        cohort, target = choose_cohort(rules, 2, tuple(range(8)))
        assert len(cohort) == target == 4
        assert (cohort, target) == choose_cohort(rules, 2, tuple(range(8)))
        assert cohort == tuple(sorted(cohort))
        assert cohort != choose_cohort(rules, 3, tuple(range(8)))[0]

    def test_everyone_has_a_turn(self) -> None:
        rules = Rules(rounds=60, share=0.25)
        drawn = [c for r in range(60) for c in choose_cohort(rules, r, tuple(range(8)))[0]]
        assert all(drawn.count(client) >= 5 for client in range(8))

    @pytest.mark.parametrize(
        ("share", "over", "candidates", "size", "target"),
        [
            (1.0, 0.1, 10, 10, 10),
            (0.5, 0.1, 20, 11, 10),
            (0.07, 0.0, 100, 7, 7),
            (0.5, 1.0, 4, 4, 2),
            (0.01, 0.0, 10, 2, 2),
        ],
    )
    def test_sizes(self, share: float, over: float, candidates: int, size: int, target: int) -> None:
        rules = Rules(rounds=1, share=share, over_select=over, min_clients=2)
        cohort, waited_for = choose_cohort(rules, 1, tuple(range(candidates)))
        assert (len(cohort), waited_for) == (size, target)

    def test_over_selection_closes_with_the_target_and_cancels_the_rest(self) -> None:
        play = training(4, share=0.5, over_select=0.5)
        (opened,) = play.of(OpenRound)
        assert len(opened.cohort) == 3
        first, second, slowest = opened.cohort
        assert play.feed(Accepted(first)) == []
        closed = play.feed(Accepted(second))
        assert CloseRound(1, (slowest,)) in closed


class TestRound:
    def test_all_updates_close_it(self) -> None:
        play = training(2)
        play.feed(Accepted(0))
        assert play.state.phase is Phase.TRAINING
        assert play.feed(Accepted(1)) == [ClearTimer("deadline"), CloseRound(1, ())]
        assert play.feed(Committed())[0] == OpenRound(2, (0, 1))

    def test_who_cannot_is_not_waited_for(self) -> None:
        play = training(2)
        asked = play.feed(Declined(0, "no memory"))
        assert asked == [Warn("round 1: client 0 did not contribute: no memory")]
        assert CloseRound(1, (0,)) in play.feed(Accepted(1))

    def test_a_second_try_takes_the_refusal_back(self) -> None:
        play = training(2)
        play.feed(Declined(0, "digest does not match"), Accepted(0), Accepted(1))
        assert play.of(CloseRound) == [CloseRound(1, ())]
        assert play.state.counted == 2

    def test_an_accepted_client_cannot_be_declined(self) -> None:
        play = training(2)
        assert play.feed(Accepted(0), Declined(0, "again, with other bytes")) == []
        assert play.state.accepted == {0}

    def test_who_was_not_asked_does_not_count(self) -> None:
        play = training(4, share=0.5)
        outsider = next(c for c in range(4) if c not in play.state.cohort)
        play.feed(Accepted(outsider), Declined(outsider, "bored"))
        assert (play.state.accepted, play.state.declined) == (frozenset(), frozenset())

    def test_who_is_away_too_long_is_lost(self) -> None:
        play = training(2, grace_s=20.0)
        play.feed(Left(0))
        assert play.timers["grace-0"].seconds == 20.0
        play.feed(Accepted(1))
        assert CloseRound(1, (0,)) in play.fire("grace-0")

    def test_who_comes_back_in_time_goes_on(self) -> None:
        play = training(2)
        play.feed(Left(0))
        back = play.feed(Joined(0))
        assert back == [ClearTimer("grace-0"), Greet(0, True, True)]
        assert "grace-0" not in play.timers

    def test_an_update_of_a_client_that_left_counts(self) -> None:
        play = training(2)
        play.feed(Left(0), Accepted(0), Accepted(1))
        assert play.of(CloseRound) == [CloseRound(1, ())]


class TestDeadline:
    def test_a_quorum_is_enough(self) -> None:
        play = training(4, quorum=0.5)
        play.feed(Accepted(0), Accepted(1))
        closed = play.fire("deadline")
        assert closed[0] == Warn("round 1: 2 of 4 updates at the deadline")
        assert CloseRound(1, (2, 3)) in closed

    def test_without_one_the_round_closes_with_what_is_there(self) -> None:
        play = training(4, quorum=0.75)
        play.feed(Accepted(0))
        closed = play.fire("deadline")
        assert closed[0] == Warn("round 1: 1 of 4 updates at the deadline, quorum is 3: closed with what is there")
        assert CloseRound(1, (1, 2, 3)) in closed

    def test_or_is_extended_once_and_only_once(self) -> None:
        play = training(4, quorum=0.75, on_miss="extend", deadline_s=60.0)
        play.feed(Accepted(0))
        play.fire("deadline")
        assert play.of(CloseRound) == []
        assert play.timers["deadline"].seconds == 60.0
        assert play.of(ExtendRound) == [ExtendRound(1, 120.0)]
        play.fire("deadline")
        assert play.of(CloseRound) == [CloseRound(1, (1, 2, 3))]

    def test_the_next_round_can_be_extended_again(self) -> None:
        play = training(2, quorum=1.0, on_miss="extend")
        play.feed(Accepted(0))
        play.fire("deadline")
        play.feed(Accepted(1), Committed())
        assert not play.state.extended


class TestEmptyRounds:
    def test_one_is_warned_of_and_the_next_opens(self) -> None:
        play = training(1)
        effects = play.feed(Declined(0, "no data"))
        assert DropRound(1) in effects
        assert Warn("round 1 counted no update: client 0: no data") in effects
        assert effects.index(DropRound(1)) < effects.index(OpenRound(2, (0,)))

    def test_three_in_a_row_fail_the_run_with_the_reason(self) -> None:
        play = training(1, rounds=9)
        play.feed(*[Declined(0, "no data")] * 3)
        (end,) = play.of(EndRun)
        assert end.outcome == "failed"
        assert end.reason == "3 rounds in a row counted no update; the last: client 0: no data"

    def test_a_good_round_between_starts_the_count_again(self) -> None:
        play = training(1, rounds=9)
        play.feed(Declined(0, "x"), Declined(0, "x"), Accepted(0), Committed(), Declined(0, "x"), Declined(0, "x"))
        assert play.state.phase is Phase.TRAINING

    def test_a_run_in_which_nothing_counted_has_failed(self) -> None:
        play = training(1, rounds=1)
        play.feed(Declined(0, "no data"))
        assert [e.outcome for e in play.of(EndRun)] == ["failed"]

    def test_nobody_answered(self) -> None:
        play = training(1, rounds=1)
        assert Warn("round 1 counted no update: no client answered") in play.fire("deadline")


class TestLateClients:
    def test_they_wait_for_the_next_run(self) -> None:
        play = training(2)
        assert play.feed(Joined(7)) == [ClearTimer("grace-7"), Greet(7, False, False)]
        play.feed(Accepted(0), Accepted(1), Committed())
        assert play.of(OpenRound)[-1] == OpenRound(2, (0, 1))

    def test_or_are_admitted_to_the_next_round(self) -> None:
        play = training(2, late="admit")
        assert play.feed(Joined(7)) == [ClearTimer("grace-7"), Greet(7, True, False)]
        play.feed(Accepted(0), Accepted(1), Committed())
        assert play.of(OpenRound)[-1] == OpenRound(2, (0, 1, 7))


class TestAbsence:
    def alone(self) -> Play:
        """Everybody left while round 1 was folded."""
        play = training(2, min_clients=2)
        play.feed(Accepted(0), Accepted(1), Left(0), Left(1), Committed())
        assert play.state.phase is Phase.GATHERING
        assert play.effects[-1] == Say("waiting for clients: 0 connected, need 2")
        return play

    def test_between_rounds_the_run_waits_for_its_clients(self) -> None:
        play = self.alone()
        play.feed(Joined(0))
        assert play.state.phase is Phase.GATHERING
        assert OpenRound(2, (0, 1)) in play.feed(Joined(1))
        assert "settle" not in play.timers

    def test_not_for_ever_where_enough_are_there(self) -> None:
        play = training(3, min_clients=2)
        play.feed(Accepted(0), Accepted(1), Accepted(2), Left(0), Left(1), Left(2), Committed(), Joined(0), Joined(1))
        assert play.state.phase is Phase.GATHERING
        assert OpenRound(2, (0, 1)) in play.fire("settle")

    def test_a_need_is_said_as_it_is(self) -> None:
        play = self.alone()
        assert Say("waiting for clients: 1 connected, need 2") in play.feed(Joined(0))


# What the hands report where no client is waited for.
NEWS: dict[Phase, Event] = {
    Phase.FOLDING: Committed(),
    Phase.MEASURING: Remeasured(),
    Phase.DECIDING: Decided(),
}


class TestEvaluation:
    def test_clients_score_the_version_they_made(self) -> None:
        play = training(2, clients_evaluate=True)
        play.feed(Accepted(0), Accepted(1))
        assert play.feed(Committed())[0] == OpenEvaluation(1, (0, 1))
        play.feed(Accepted(0))
        assert play.feed(Accepted(1))[-1] == CloseEvaluation(1)
        assert play.feed(Decided())[0] == OpenRound(2, (0, 1))

    def test_all_score_a_version_that_a_pruning_step_is_judged_by(self) -> None:
        play = training(4, share=0.5)
        play.feed(*(Accepted(c) for c in play.state.cohort))
        assert play.feed(Committed(judge=True))[0] == OpenEvaluation(1, (0, 1, 2, 3))
        play.feed(*(Accepted(c) for c in range(4)))
        assert play.state.phase is Phase.DECIDING
        play.feed(Decided())
        assert not play.state.judged
        play.feed(*(Accepted(c) for c in play.state.cohort))
        assert isinstance(play.feed(Committed())[0], OpenRound)

    def test_a_stop_waits_for_the_decision(self) -> None:
        play = training(1, clients_evaluate=True)
        play.feed(Accepted(0), Committed(), Accepted(0))
        assert play.of(EndRun) == []
        play.feed(StopRequested("enough"))
        assert play.feed(Decided())[-1] == EndRun("stopped", "enough")

    def test_at_the_deadline_it_ends_with_what_is_there(self) -> None:
        play = training(2, clients_evaluate=True)
        play.feed(Accepted(0), Accepted(1), Committed(), Accepted(0))
        assert CloseEvaluation(1) in play.fire("deadline")

    @pytest.mark.parametrize(("every", "evaluated"), [(1, [1, 2, 3]), (2, [2, 3]), (0, [3])])
    def test_as_often_as_asked_and_at_the_end(self, every: int, evaluated: list[int]) -> None:
        play = training(1, clients_evaluate=True, evaluate_every=every)
        while play.state.phase is not Phase.ENDED:
            play.feed(NEWS.get(play.state.phase, Accepted(0)))
        assert [e.round for e in play.of(OpenEvaluation)] == evaluated
        assert [e.outcome for e in play.of(EndRun)] == ["finished"]

    def test_whoever_is_left_scores_it(self) -> None:
        play = training(4, share=0.5, clients_evaluate=True)
        workers = play.state.cohort
        others = tuple(c for c in range(4) if c not in workers)
        play.feed(*(Accepted(c) for c in workers), *(Left(c) for c in workers))
        assert play.feed(Committed())[0] == OpenEvaluation(1, others)


class TestReestimation:
    def test_statistics_come_before_the_next_round(self) -> None:
        play = training(2)
        play.feed(Accepted(0), Accepted(1))
        assert play.feed(Committed(remeasure=True))[0] == OpenReestimation(1, (0, 1))
        play.feed(Accepted(0))
        assert play.feed(Accepted(1))[-1] == CloseReestimation(1)
        assert play.feed(Remeasured())[0] == OpenRound(2, (0, 1))

    def test_statistics_come_before_the_evaluation(self) -> None:
        play = training(4, share=0.5)
        workers = play.state.cohort
        play.feed(*(Accepted(c) for c in workers))
        assert play.feed(Committed(judge=True, remeasure=True))[0] == OpenReestimation(1, workers)
        play.feed(*(Accepted(c) for c in workers))
        assert play.feed(Remeasured())[0] == OpenEvaluation(1, (0, 1, 2, 3))
        play.feed(*(Accepted(c) for c in range(4)))
        assert isinstance(play.feed(Decided())[0], OpenRound)

    def test_at_the_deadline_it_ends_with_what_is_there(self) -> None:
        play = training(2)
        play.feed(Accepted(0), Accepted(1), Committed(remeasure=True), Accepted(0))
        assert CloseReestimation(1) in play.fire("deadline")

    def test_a_stop_waits_for_the_version(self) -> None:
        play = training(1)
        play.feed(Accepted(0), Committed(remeasure=True), Accepted(0), StopRequested("enough"))
        assert play.of(EndRun) == []
        assert play.feed(Remeasured())[-1] == EndRun("stopped", "enough")

    def test_what_was_closed_is_folded_again_after_a_restart(self) -> None:
        again = Play()
        again.take(rounds.resume(Course(rules=Rules(rounds=3), round=2, shards=(0,), phase=Phase.MEASURING)))
        assert again.of(CloseReestimation) == [CloseReestimation(2)]

    def test_what_was_not_closed_is_asked_for_again(self) -> None:
        again = Play()
        again.take(rounds.resume(Course(rules=Rules(rounds=3), round=3, shards=(0,), counted=3, unmeasured=True)))
        assert again.feed(Joined(0))[-2] == OpenReestimation(3, (0,))


class TestScoring:
    def test_the_cohort_scores_and_then_trains(self) -> None:
        play = training(2, scored=frozenset({2}))
        opened = play.feed(Accepted(0), Accepted(1), Committed())
        assert opened[-2:] == [OpenScoring(2, (0, 1)), SetTimer("deadline", 600.0, DeadlinePassed())]
        play.feed(Accepted(0))
        assert play.feed(Accepted(1))[:2] == [ClearTimer("deadline"), OpenRound(2, (0, 1), True)]
        assert play.state.phase is Phase.TRAINING
        assert play.state.pending == (0, 1)
        play.feed(Accepted(0), Accepted(1), Committed())
        assert play.of(OpenRound)[-1] == OpenRound(3, (0, 1))

    def test_who_cannot_score_still_trains(self) -> None:
        play = scoring(2, scored=frozenset({1}))
        play.feed(Declined(0, "no shape of mine"), Accepted(1))
        assert play.of(OpenRound) == [OpenRound(1, (0, 1), True)]
        assert play.state.pending == (0, 1)

    def test_at_the_deadline_training_begins_and_who_is_away_gets_its_time_again(self) -> None:
        play = scoring(2, scored=frozenset({1}), grace_s=20.0)
        play.feed(Left(0), Accepted(1))
        assert play.of(OpenRound) == []
        assert OpenRound(1, (0, 1), True) in play.fire("deadline")
        assert play.timers["grace-0"].seconds == 20.0
        play.feed(Accepted(1))
        assert CloseRound(1, (0,)) in play.fire("grace-0")

    def test_before_the_first_round_scores_alone_make_a_mask(self) -> None:
        play = scoring(2, scored=frozenset({0}), clients_evaluate=True)
        assert play.of(OpenScoring) == [OpenScoring(0, (0, 1))]
        play.feed(Accepted(0))
        assert play.feed(Accepted(1)) == [ClearTimer("deadline"), CloseRound(0, ())]
        assert play.feed(Committed())[0] == OpenRound(1, (0, 1))
        assert play.state.counted == 0

    def test_a_first_model_that_nobody_can_score_ends_the_run(self) -> None:
        play = scoring(1, scored=frozenset({0}))
        assert play.feed(Declined(0, "no data"))[-1] == EndRun(
            "failed", "nobody could score the first model: client 0: no data"
        )

    def test_a_coordinator_that_comes_back_goes_on_scoring(self) -> None:
        play = scoring(2, scored=frozenset({1}))
        play.feed(Accepted(0))
        again = Play()
        again.take(rounds.resume(replace(play.state, connected=frozenset())))
        assert set(again.timers) == {"deadline", "grace-1", "settle"}
        closed = replace(play.state, declined=frozenset({1}), connected=frozenset())
        assert OpenRound(1, (0, 1), True) in rounds.resume(closed)[1]


class TestStopping:
    def test_while_clients_work_it_stops_at_once(self) -> None:
        play = training(2)
        assert play.feed(StopRequested("enough"))[-1] == EndRun("stopped", "enough")

    def test_what_is_being_committed_is_kept(self) -> None:
        play = training(2)
        play.feed(Accepted(0), Accepted(1), StopRequested("enough"))
        assert play.of(EndRun) == []
        assert play.feed(Committed())[-1] == EndRun("stopped", "enough")

    def test_a_broken_coordinator_fails_the_run(self) -> None:
        play = training(2)
        assert play.feed(Broken("disk full"))[-1] == EndRun("failed", "disk full")

    def test_an_ended_run_stays_ended(self) -> None:
        play = training(2)
        play.feed(StopRequested("enough"))
        every = [Left(0), GraceOver(0), Settled(), Accepted(0), Declined(0, ""), DeadlinePassed()]
        assert play.feed(*every, Committed(), Broken(""), StopRequested("")) == []
        assert play.feed(Joined(0)) == [Dismiss(client=0)]
        assert play.state.phase is Phase.ENDED


class TestResume:
    def test_the_open_round_gets_its_time_again(self) -> None:
        play = training(2)
        play.feed(Accepted(0))
        again = Play()
        again.take(rounds.resume(replace(play.state, connected=frozenset())))
        assert set(again.timers) == {"deadline", "grace-1", "settle"}

    def test_a_complete_round_is_folded_at_once(self) -> None:
        state = replace(training(2).state, accepted=frozenset({0, 1}))
        again = Play()
        again.take(rounds.resume(state))
        assert again.of(CloseRound) == [CloseRound(1, ())]

    def test_a_round_being_folded_is_folded_again(self) -> None:
        play = training(2)
        play.feed(Accepted(0), Accepted(1))
        assert CloseRound(1, ()) in rounds.resume(play.state)[1]

    def test_the_next_round_waits_for_who_is_slower_to_come_back_than_the_open_one_takes_to_end(self) -> None:
        again = self.all_but_one_back()
        again.feed(Joined(2))
        assert again.of(OpenRound) == [OpenRound(2, (0, 1, 2))]
        assert set(again.timers) == {"deadline"}

    def test_the_next_round_opens_without_who_does_not_come_back(self) -> None:
        again = self.all_but_one_back()
        again.fire("settle")
        assert again.of(OpenRound) == [OpenRound(2, (0, 1))]
        again.feed(Accepted(0), Accepted(1), Committed())
        assert again.of(OpenRound)[1:] == [OpenRound(3, (0, 1))]

    def test_who_does_not_come_back_while_a_round_is_open_is_not_waited_for_after_it(self) -> None:
        again = Play()
        again.take(rounds.resume(replace(training(3).state, accepted=frozenset({2}), connected=frozenset())))
        again.feed(Joined(0), Joined(1))
        again.fire("settle")
        again.feed(Accepted(0), Accepted(1), Committed())
        assert again.of(OpenRound) == [OpenRound(2, (0, 1))]

    def test_when_all_are_back_no_round_waits_for_who_leaves_again(self) -> None:
        again = Play()
        again.take(rounds.resume(replace(training(3).state, accepted=frozenset({2}), connected=frozenset())))
        again.feed(Joined(0), Joined(1), Joined(2))
        assert "settle" not in again.timers
        again.feed(Left(2), Accepted(0), Accepted(1), Committed())
        assert again.of(OpenRound) == [OpenRound(2, (0, 1))]

    def test_an_evaluation_waits_for_them_too(self) -> None:
        again = Play()
        open_ = replace(training(3, clients_evaluate=True).state, accepted=frozenset({2}), connected=frozenset())
        again.take(rounds.resume(open_))
        again.feed(Joined(0), Joined(1), Accepted(0), Accepted(1), Committed())
        assert again.of(OpenEvaluation) == []
        again.feed(Joined(2))
        assert again.of(OpenEvaluation) == [OpenEvaluation(1, (0, 1, 2))]

    def all_but_one_back(self) -> Play:
        """A run of three that was taken up with one update in; the other two came back and the round is committed."""
        again = Play()
        again.take(rounds.resume(replace(training(3).state, accepted=frozenset({2}), connected=frozenset())))
        again.feed(Joined(0), Joined(1), Accepted(0), Accepted(1), Committed())
        assert again.state.phase is Phase.GATHERING
        assert again.effects[-1] == Say("waiting up to 30 s for clients to come back: 1 of 3 away")
        return again

    def test_between_rounds_it_waits_for_clients_but_not_for_ever(self) -> None:
        again = Play()
        again.take(rounds.resume(Course(rules=Rules(rounds=3), round=1, shards=(0, 1))))
        assert again.state.phase is Phase.GATHERING
        again.feed(Joined(1))
        assert again.of(OpenRound) == []
        again.fire("settle")
        assert again.of(OpenRound) == [OpenRound(2, (1,))]

    def test_after_the_last_round_nobody_is_needed(self) -> None:
        again = Play()
        again.take(rounds.resume(Course(rules=Rules(rounds=3), round=3, shards=(0, 1), counted=6)))
        assert again.of(EndRun) == [EndRun("finished", "3 rounds done")]

    def test_an_evaluation_that_was_closed_is_decided_again(self) -> None:
        again = Play()
        again.take(rounds.resume(Course(rules=Rules(rounds=3), round=2, shards=(0,), phase=Phase.DECIDING)))
        assert again.of(CloseEvaluation) == [CloseEvaluation(2)]

    def test_after_the_last_round_an_evaluation_is_still_waited_for(self) -> None:
        unevaluated = Course(rules=Rules(rounds=3), round=3, shards=(0, 1), counted=6, unevaluated=True)
        again = Play()
        again.take(rounds.resume(unevaluated))
        again.feed(Joined(0), Joined(1))
        assert again.of(OpenEvaluation) == [OpenEvaluation(3, (0, 1))]
        nobody = Play()
        nobody.take(rounds.resume(unevaluated))
        nobody.fire("settle")
        assert [end.outcome for end in nobody.of(EndRun)] == ["finished"]


CLIENTS = st.integers(0, 4)


class Lives(RuleBasedStateMachine):
    """Random lives of runs, under hands that do what they are asked; checked after every event."""

    @initialize(
        total=st.integers(1, 4),
        expect=st.integers(0, 3),
        share=st.sampled_from([0.3, 0.5, 1.0]),
        over_select=st.sampled_from([0.0, 0.5]),
        quorum=st.sampled_from([0.3, 0.5, 1.0]),
        min_clients=st.integers(1, 2),
        on_miss=st.sampled_from(["close", "extend"]),
        late=st.sampled_from(["wait", "admit"]),
        clients_evaluate=st.booleans(),
        evaluate_every=st.integers(0, 2),
        scored=st.frozensets(st.integers(0, 4)),
    )
    def begin(self, total: int, expect: int, min_clients: int, **rules: Any) -> None:
        expect = max(expect, min_clients) if expect else 0
        self.play = Play(rounds=total, expect=expect, min_clients=min_clients, **rules)
        self.accepted_in_rounds = 0

    def feed(self, event: Event) -> None:
        before = self.play.state
        effects = self.play.feed(event)
        if before.phase is Phase.ENDED:
            assert effects == ([Dismiss(event.client)] if isinstance(event, Joined) else [])
            assert self.play.state == before
        for effect in effects:
            if isinstance(effect, CloseRound) and effect.round:
                self.accepted_in_rounds += len(self.play.state.accepted)
                assert not set(effect.missing) & self.play.state.accepted

    @rule(client=CLIENTS)
    def join(self, client: int) -> None:
        self.feed(Joined(client))

    @rule(client=CLIENTS)
    def leave(self, client: int) -> None:
        self.feed(Left(client))

    @rule(client=CLIENTS)
    def accept(self, client: int) -> None:
        self.feed(Accepted(client))

    @rule(client=CLIENTS)
    def decline(self, client: int) -> None:
        self.feed(Declined(client, "cannot"))

    @rule(client=CLIENTS)
    def stray_news(self, client: int) -> None:
        """A grace timer that ran out just before it was cleared."""
        self.feed(GraceOver(client))

    @precondition(lambda self: self.play.timers)
    @rule(data=st.data())
    def time_passes(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.play.timers)))
        self.feed(self.play.timers.pop(name).event)

    @precondition(lambda self: self.play.state.phase is Phase.FOLDING)
    @rule(judge=st.booleans(), remeasure=st.booleans())
    def commit(self, judge: bool, remeasure: bool) -> None:
        self.feed(Committed(judge=judge, remeasure=remeasure))

    @precondition(lambda self: self.play.state.phase is Phase.MEASURING)
    @rule()
    def remeasure(self) -> None:
        self.feed(Remeasured())

    @precondition(lambda self: self.play.state.phase is Phase.DECIDING)
    @rule()
    def decide(self) -> None:
        self.feed(Decided())

    @precondition(lambda self: self.play.state.phase is not Phase.ENDED)
    @rule(rare=st.integers(0, 30))
    def stop(self, rare: int) -> None:
        if rare == 0:
            self.feed(StopRequested("enough"))

    @precondition(lambda self: self.play.state.phase in (Phase.GATHERING, Phase.SCORING, Phase.TRAINING))
    @precondition(lambda self: self.play.state.shards)
    @rule()
    def killed_and_taken_up(self) -> None:
        self.play.timers.clear()
        self.play.take(rounds.resume(replace(self.play.state, connected=frozenset(), returning=False)))

    @invariant()
    def sets_fit(self) -> None:
        state = self.play.state
        if state.waits:
            assert state.accepted <= set(state.cohort)
            assert state.declined <= set(state.cohort)
            assert not state.accepted & state.declined
            assert set(state.cohort) <= set(state.shards)

    @invariant()
    def nothing_is_waited_for_without_a_timer_or_a_name(self) -> None:
        state, timers = self.play.state, self.play.timers
        if state.waits:
            assert "deadline" in timers
            assert state.pending
            assert all(c in state.connected or f"grace-{c}" in timers for c in state.pending)
        elif state.phase is Phase.GATHERING:
            said = self.play.of(Say)
            assert not said or said[-1].text.startswith("waiting for clients") or "settle" in timers
            here = state.candidates if state.shards else state.connected
            enough = len(here) >= max(1, state.rules.min_clients, 0 if state.shards else state.rules.expect)
            assert not enough or "settle" in timers

    @invariant()
    def what_is_opened_is_closed_once_and_in_order(self) -> None:
        opened = [e.round for e in self.play.of(OpenRound)]
        closed = [e.round for e in self.play.effects if isinstance(e, (CloseRound, DropRound)) and e.round]
        assert opened == list(range(1, len(opened) + 1))
        assert closed in (opened, opened[:-1])
        assert len(self.play.of(EndRun)) == (self.play.state.phase is Phase.ENDED)

    @invariant()
    def an_update_counts_once(self) -> None:
        assert self.play.state.counted == self.accepted_in_rounds

    def teardown(self) -> None:
        """From wherever it is, a run whose clients come and work comes to its end."""
        if not hasattr(self, "play"):
            return
        for _ in range(100):
            state = self.play.state
            if state.phase is Phase.ENDED:
                break
            if state.phase in NEWS:
                self.feed(NEWS[state.phase])
            elif state.phase is Phase.GATHERING:
                away = [c for c in (*state.shards, *range(5)) if c not in state.connected]
                self.feed(Joined(away[0])) if away else self.play.fire("settle")
            else:
                self.feed(Accepted(state.pending[0]))
        (end,) = self.play.of(EndRun)
        assert (end.outcome == "finished") == (self.play.state.round == self.play.state.rules.rounds) or (
            end.outcome in ("stopped", "failed")
        )


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
