"""The pruning controller in the life of a run: what it does when a round closes, and with what clients found.

`controller.py` knows steps and verdicts, `pruner.py` masks; this module brings the two together, as pure functions of
the controller's state. That state is kept with the version it led to, so that a coordinator that is killed judges
again by the same results and comes to the same verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedprune.errors import TaskError
from fedprune.mask import Mask
from fedprune.pruning.comparison import Measured
from fedprune.tensor import Version
from fedprune_server.controller import step
from fedprune_server.proposal import Proposal, Weights
from fedprune_server.pruner import Pruner
from fedprune_server.trials import (
    ControlState,
    Evaluated,
    Exhausted,
    Phase,
    Propose,
    Proposed,
    Record,
    Restore,
    RoundClosed,
    RunEnding,
)

METRIC = "accuracy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The controller's state for the version of a round, and the mask that this version is to have, if another."""

    state: ControlState
    proposal: Proposal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was decided, for the report, and the version to go back to, if any."""

    state: ControlState
    record: Record | None = None
    restore: Version | None = None


def attempt(
    state: ControlState, pruner: Pruner, *, round: int, weights: Weights, mask: Mask, before: Version
) -> Attempt:
    """A round closes over the version `before`: the controller may want to try a mask with it."""
    state, effects = step(state, RoundClosed(round, before))
    wanted = next((effect for effect in effects if isinstance(effect, Propose)), None)
    if wanted is None:
        return Attempt(state=state, proposal=None)
    proposal = pruner.bring(wanted.density, round=round, weights=weights, mask=mask, next_mask_version=mask.version + 1)
    if proposal is None or proposal.mask.alive_count >= mask.alive_count:
        return Attempt(state=step(state, Exhausted())[0], proposal=None)
    return Attempt(state=step(state, Proposed(proposal.realised_density))[0], proposal=proposal)


def awaits_evaluation(state: ControlState | None) -> bool:
    """Whether the controller waits for what clients find about the latest version."""
    return state is not None and state.phase in (Phase.BASELINE, Phase.JUDGING)


def judge(state: ControlState, found: Mapping[str, Measured]) -> Verdict:
    """What follows from the clients' results; nothing where nobody had an example: they are asked again."""
    if not found or not awaits_evaluation(state):
        return Verdict(state=state)
    return _verdict(state, Evaluated(found))


def end(state: ControlState) -> Verdict:
    """No further round comes: a step that nobody has judged is undone."""
    return _verdict(state, RunEnding())


def measured(results: Sequence[tuple[int, int, Mapping[str, float]]]) -> dict[str, Measured]:
    """Clients' results, (client, examples, metrics), as the controller compares them; clients without an example are
    left out. Raises `TaskError` where the task does not measure accuracy."""
    found = {}
    for client, examples, metrics in results:
        if examples and METRIC not in metrics:
            raise TaskError(
                "a pruning step is judged by accuracy, and the task's `metrics` gives none",
                party=f"client {client}",
                seen=sorted(metrics),
                expected=f"{METRIC!r} among them",
                next_step="Return it from `metrics`, or leave pruning.max_accuracy_drop out",
            )
        if examples:
            found[f"client {client}"] = Measured(value=metrics[METRIC], examples=examples)
    return found


def _verdict(state: ControlState, event: Evaluated | RunEnding) -> Verdict:
    after, effects = step(state, event)
    record = next((effect for effect in effects if isinstance(effect, Record)), None)
    restore = next((effect.snapshot for effect in effects if isinstance(effect, Restore)), None)
    return Verdict(state=after, record=record, restore=restore)
