"""Pruning on approval: every path through the table, and whole runs against models that bear so much and no more."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from pydantic import TypeAdapter

from fedprune.errors import LocalError
from fedprune.pruning.comparison import Interval, Measured
from fedprune.tensor import Version
from fedprune_server.controller import IGNORED, TABLE, judge, next_density, step
from fedprune_server.trials import (
    EVENTS,
    ControlPlan,
    ControlState,
    Effect,
    Evaluate,
    Evaluated,
    Exhausted,
    Frozen,
    Phase,
    Propose,
    Proposed,
    Record,
    Release,
    Restore,
    RoundClosed,
    RunEnding,
)

PLAN = ControlPlan(path=(0.5, 0.2, 0.1), first=4, last=60, recovery_rounds=2)


def units(level: float) -> Mapping[str, Measured]:
    return {f"client {k}": Measured(value=level + 0.001 * k, examples=100 + k) for k in range(6)}


class Run:
    """The hands: carry out effects against a model whose accuracy is a function of density. Content is the density,
    under versions that only grow."""

    def __init__(self, plan: ControlPlan, accuracy: Callable[[float], float], *, floor: float = 0.0) -> None:
        self.state = ControlState(plan=plan)
        self.accuracy, self.floor = accuracy, floor
        self.version = Version()
        self.contents = {self.version: 1.0}
        self.log: list[Effect] = []

    @property
    def density(self) -> float:
        return self.contents[self.version]

    def commit(self, density: float, *, mask: int = 0) -> None:
        self.version = Version(model=self.version.model + 1, mask=self.version.mask + mask)
        self.contents[self.version] = density

    def tell(self, event: RoundClosed | Evaluated | Proposed | Exhausted | RunEnding) -> None:
        self.state, effects = step(self.state, event)
        for effect in effects:
            self.log.append(effect)
            self.do(effect)

    def do(self, effect: Effect) -> None:
        if isinstance(effect, Evaluate):
            self.tell(Evaluated(units(self.accuracy(self.density))))
        elif isinstance(effect, Propose):
            assert effect.snapshot == self.version
            if effect.density < self.floor:
                self.tell(Exhausted())
            else:
                self.commit(effect.density, mask=1)
                self.tell(Proposed(effect.density))
        elif isinstance(effect, Restore):
            self.commit(self.contents[effect.snapshot], mask=1)

    def rounds(self, count: int) -> None:
        for round in range(1, count + 1):
            self.commit(self.density)
            self.tell(RoundClosed(round, self.version))
        self.tell(RunEnding())

    def of(self, kind: type[Effect]) -> list[Effect]:
        return [effect for effect in self.log if isinstance(effect, kind)]


def test_every_pair_of_phase_and_event_is_thought_of() -> None:
    assert {(p, e) for p in Phase for e in EVENTS} == TABLE.keys() | IGNORED
    assert not TABLE.keys() & IGNORED


def test_a_model_that_bears_it_all_reaches_the_target() -> None:
    run = Run(PLAN, lambda density: 0.9)
    run.rounds(70)
    assert run.state.phase is Phase.FROZEN
    assert run.state.density == run.density == 0.1
    assert run.state.outcome == "density 0.1 accepted: the target is reached"
    assert [p.density for p in run.of(Propose) if isinstance(p, Propose)] == [0.5, 0.2, 0.1]
    assert not run.of(Restore)
    assert len(run.of(Release)) == 3


def test_recovery_is_given_its_rounds_before_the_verdict() -> None:
    run = Run(PLAN, lambda density: 0.9)
    run.rounds(8)
    kinds = [type(effect) for effect in run.log]
    # Round 4 baseline, 5 proposal, 6 and 7 recovery, judged after 7, 8 the next proposal, abandoned at the end.
    assert kinds == [Evaluate, Propose, Evaluate, Record, Release, Propose, Record, Restore, Frozen]
    assert [e.round for e in run.of(Evaluate) if isinstance(e, Evaluate)] == [4, 7]


def test_a_model_that_bears_nothing_ends_as_it_began() -> None:
    run = Run(PLAN, lambda density: 0.9 if density == 1.0 else 0.5)
    run.rounds(70)
    assert run.density == 1.0
    assert run.state.outcome == "nothing could be pruned: 3 steps in a row were rejected"
    assert [p.density for p in run.of(Propose) if isinstance(p, Propose)] == [0.5, 0.75, 0.875], "half the step each"
    assert len(run.of(Restore)) == 3


def test_versions_never_come_back() -> None:
    run = Run(PLAN, lambda density: 0.9 if density > 0.3 else 0.5)
    seen = [run.version]
    commit = run.commit

    def watched(density: float, *, mask: int = 0) -> None:
        commit(density, mask=mask)
        seen.append(run.version)

    run.commit = watched  # type: ignore[method-assign]  # a spy
    run.rounds(70)
    assert len(set(seen)) == len(seen)
    assert seen == sorted(seen)
    restores = [r for r in run.of(Restore) if isinstance(r, Restore)]
    assert restores
    assert all(run.contents[r.snapshot] in (0.5, 0.35) or run.contents[r.snapshot] > 0.3 for r in restores)


def test_the_limit_is_found_between_the_steps() -> None:
    run = Run(PLAN, lambda density: 0.9 if density >= 0.3 else 0.7)
    run.rounds(100)
    assert 0.3 <= run.state.density < 0.36
    assert run.density == run.state.density, "the run ends on what was accepted"


def test_after_a_half_step_the_next_goes_all_the_way_again() -> None:
    run = Run(replace(PLAN, path=(0.5,)), lambda density: 0.9 if density >= 0.6 else 0.7)
    run.rounds(100)
    tried = [p.density for p in run.of(Propose) if isinstance(p, Propose)]
    # Three rejections in a row end it, not three in all.
    assert tried == pytest.approx([0.5, 0.75, 0.5, 0.625, 0.5, 0.5625, 0.59375])
    assert run.state.density == pytest.approx(0.625)


def test_what_was_realised_is_what_is_accepted() -> None:
    state = ControlState(plan=PLAN, phase=Phase.READY, best=units(0.9))
    state, _ = step(state, RoundClosed(5, Version(model=5)))
    state, _ = step(state, Proposed(0.52))
    for round in (6, 7):
        state, _ = step(state, RoundClosed(round, Version(model=round)))
    state, _ = step(state, Evaluated(units(0.9)))
    assert state.density == 0.52
    assert next_density(state) == 0.5


def test_small_drops_do_not_add_up() -> None:
    path = tuple(1 - 0.05 * k for k in range(1, 19))
    run = Run(replace(PLAN, path=path, last=200), lambda density: 0.9 - 0.05 * (1 - density))
    run.rounds(210)
    # Each step costs 0.25 points; from dense to the end at most one point may be lost.
    assert 0.05 * (1 - run.density) <= 0.01 + 1e-9
    assert run.state.accepted >= 3


def test_the_best_accepted_model_is_the_measure() -> None:
    run = Run(PLAN, lambda density: {1.0: 0.80, 0.5: 0.90, 0.2: 0.885}.get(density, 0.899))
    run.rounds(70)
    first = next(r for r in run.of(Record) if isinstance(r, Record) and r.density_tried == 0.2)
    assert first.decision == "rejected", "better than dense, but worse than the accepted 0.5"
    assert first.drop is not None
    assert first.drop.mean == pytest.approx(0.015)


def test_floors_that_hold_everything_freeze_the_mask() -> None:
    run = Run(PLAN, lambda density: 0.9, floor=0.3)
    run.rounds(70)
    assert run.state.outcome == "density 0.5 accepted: the floors hold what is left"


def test_no_trial_is_begun_too_late_and_none_left_open() -> None:
    late = Run(replace(PLAN, first=4, last=6), lambda density: 0.9)
    late.rounds(20)
    assert late.state.outcome == "density 0.5 accepted: no time for another trial after round 8"
    cut = Run(PLAN, lambda density: 0.9)
    cut.rounds(6)
    assert cut.density == 1.0
    assert cut.state.outcome == "nothing could be pruned: the run ended before the last trial was judged"
    assert [r.decision for r in cut.of(Record) if isinstance(r, Record)] == ["abandoned"]


def test_an_undecided_trial_recovers_longer_then_the_mean_decides() -> None:
    wide = [0.00, 0.03, -0.02, 0.02, -0.01, 0.01]

    def noisy(offset: float) -> Mapping[str, Measured]:
        return {f"client {k}": Measured(value=0.9 - d - offset, examples=100) for k, d in enumerate(wide)}

    for offset, decision in [(0.0, "accepted"), (0.008, "rejected")]:
        state = ControlState(plan=PLAN, phase=Phase.BASELINE)
        state, _ = step(state, Evaluated({f"client {k}": Measured(value=0.9, examples=100) for k in range(6)}))
        state, _ = step(state, RoundClosed(5, Version(model=5)))
        state, _ = step(state, Proposed(0.5))
        for _ in range(2):
            state, effects = step(state, RoundClosed(6, Version(model=6)))
        assert effects == (Evaluate(6),)
        state, (record,) = step(state, Evaluated(noisy(offset)))
        assert isinstance(record, Record)
        assert record.decision == "extended"
        assert state.phase is Phase.RECOVERING
        for _ in range(2):
            state, _ = step(state, RoundClosed(8, Version(model=8)))
        state, (record, *_) = step(state, Evaluated(noisy(offset)))
        assert isinstance(record, Record)
        assert record.decision == decision


def test_a_killed_coordinator_proposes_again_from_where_it_stands() -> None:
    state = ControlState(plan=PLAN, phase=Phase.READY, best=units(0.9))
    state, _ = step(state, RoundClosed(5, Version(model=5)))
    state, effects = step(state, RoundClosed(6, Version(model=6)))
    assert effects == (Propose(0.5, Version(model=6)),)
    state, effects = step(state, RunEnding())
    assert effects == (Release(Version(model=6)), Frozen("the run ended"))


@pytest.mark.parametrize("rounds", [2, 4, 5, 6, 7, 30])
def test_the_state_can_be_stored_at_any_time(rounds: int) -> None:
    run = Run(PLAN, lambda density: 0.9 if density >= 0.3 else 0.7)
    for round in range(1, rounds + 1):
        run.commit(run.density)
        run.tell(RoundClosed(round, run.version))
    adapter = TypeAdapter(ControlState)
    assert adapter.validate_json(adapter.dump_json(run.state)) == run.state


def test_an_evaluation_that_did_not_come_is_asked_for_again() -> None:
    for phase in (Phase.BASELINE, Phase.JUDGING):
        state, effects = step(ControlState(plan=PLAN, phase=phase), RoundClosed(9, Version(model=9)))
        assert effects == (Evaluate(9),)
        assert state.phase is phase


def test_nobody_answering_speaks_against_a_step() -> None:
    assert judge(
        Interval(mean=float("inf"), low=float("-inf"), high=float("inf"), pairs=0), PLAN, last_chance=False
    ) == ("rejected")


def test_test_data_is_no_judge() -> None:
    # Sub-FedAvg's released code opens its pruning gate by the client's test loader.
    with pytest.raises(LocalError, match="cannot be judged on test data"):
        step(ControlState(plan=PLAN, phase=Phase.BASELINE), Evaluated(units(0.9), source="test"))


def test_steps_too_small_to_matter_are_not_tried() -> None:
    state = ControlState(plan=replace(PLAN, path=(0.98,)), scale=0.25)
    assert next_density(state) is None
    assert next_density(replace(state, scale=1.0)) == pytest.approx(0.98)


@pytest.mark.parametrize(
    "bad",
    [
        {"path": ()},
        {"path": (0.5, 0.5)},
        {"path": (1.0,)},
        {"path": (0.5, 0.0)},
        {"first": 0},
        {"first": 61},
        {"recovery_rounds": 0},
        {"extensions": -1},
        {"max_rejections": 0},
        {"max_drop": -0.1},
        {"confidence": 1.0},
        {"smallest_step": 0.0},
    ],
)
def test_plans_that_cannot_be_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(LocalError, match="the controller's"):
        replace(PLAN, **bad)  # type: ignore[arg-type]  # wrong on purpose
