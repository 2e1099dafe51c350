"""Importance scores that need data: which weights matter to this client's examples.

The formulas are those of `fedprune.pruning.accumulate`; here the model runs and torch differentiates. Gradients are
those of the whole tensor, pruned weights included, because regrowth asks what a dead weight would do. Movement is
taken at the weights of the version, batch by batch, not along a training path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedprune.batches import batches, examples_in, guarded
from fedprune.errors import LocalError, TaskError
from fedprune.mask import Indices, Mask
from fedprune.pruning.accumulate import FORMULAS, GradientScore, over_rows, wanda
from fedprune.pruning.floors import Floors
from fedprune.pruning.regrowth import exchange, largest_dead
from fedprune.pruning.scores import FROM_CLIENTS, magnitudes
from fedprune.pruning.votes import propose
from fedprune.task import UserCode
from fedprune.torch import load_arrays, seeded
from fedprune.work import ScoreWork
from fedprune_client.activity import ActivityWatch, Unit
from fedprune_client.training import Trainer, differentiable_loss

Floats = NDArray[np.float32]
Stop = Callable[[], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """`scores` by prunable tensor, of its shape, the larger the more important. With `ScoreWork.grow` there is `grown`
    in their place: by tensor the flat positions, ascending, of the largest gradients among the pruned weights, and in
    `gradients` their values, sign included (mean over the examples). With `ScoreWork.keep` or `ScoreWork.train` there is
    the mask `proposed`."""

    examples: int
    scores: Mapping[str, Floats] | None = None
    grown: Mapping[str, Indices] | None = None
    gradients: Mapping[str, Floats] | None = None
    proposed: Mask | None = None


def score(
    trainer: Trainer, weights: Mapping[str, NDArray[Any]], mask: Mask, work: ScoreWork, *, stop: Stop
) -> Scored | None:
    """Score `weights` on the training share, or on its first `work.batches` batches; None when `stop()` was true
    after one. `LocalError` for an unknown method or a layer that it cannot see into, `TaskError` from the task."""
    _check(work, mask)
    if work.train is not None:
        return _readjusted(trainer, weights, mask, work, stop)
    load_arrays(trainer.model, trainer.schema, weights)
    with seeded(work.seed):
        by = _by_gradient(trainer, mask, work, stop) if work.method in FORMULAS else _by_activity(trainer, work, stop)
    if not work.keep or by is None or by.scores is None:
        return by
    return Scored(examples=by.examples, proposed=propose(by.scores, mask, work.keep, method=work.method))


def _readjusted(
    trainer: Trainer, weights: Mapping[str, NDArray[Any]], mask: Mask, work: ScoreWork, stop: Stop
) -> Scored | None:
    """The mask that this client would rather have, as its own training shows it (FedDST, Bibikar et al. 2022): of each
    tensor the smallest weights give way to those with the largest gradients."""
    assert work.train is not None
    trained = trainer.train(weights, mask, work.train, on_step=lambda step, steps: None, stop=stop)
    if trained is None:
        return None
    load_arrays(trainer.model, trainer.schema, trained.weights)
    with seeded(work.seed):
        found = _by_gradient(trainer, mask, replace(work, grow=(), train=None), stop)
    if found is None or found.scores is None:
        return None
    counts = dict(zip(mask.alive, work.grow, strict=True))
    ranked, free = magnitudes(mask.schema, trained.weights), Floors(weights=0, share=0.0, connect=False)
    done = exchange(ranked, found.scores, mask, counts, free, mask.version + 1, score=work.method)
    return Scored(examples=found.examples, proposed=done.mask)


def _check(work: ScoreWork, mask: Mask) -> None:
    known = FORMULAS.keys() | BY_ACTIVITY.keys()
    if work.method not in known:
        raise LocalError("no such score from data", seen=repr(work.method), expected=" | ".join(sorted(known)))
    if work.grow and (work.method != "gradient" or len(work.grow) != len(mask.alive)):
        raise LocalError(
            "nothing can be grown by this",
            seen=f"{work.method!r} for {len(work.grow)} tensors",
            expected=f"'gradient' for {len(mask.alive)} tensors",
        )


def _by_gradient(trainer: Trainer, mask: Mask, work: ScoreWork, stop: Stop) -> Scored | None:
    trainer.model.train()
    total = GradientScore(method=work.method)
    parameters = _prunable(trainer)
    at = {name: _floats(p) for name, p in parameters.items()}
    for batch in _batches(trainer, work):
        trainer.model.zero_grad(set_to_none=True)
        torch.autograd.backward(differentiable_loss(trainer.task, trainer.model, batch))
        total.add({name: _gradient(p) for name, p in parameters.items()}, at, examples_in(batch))
        if stop():
            return None
    trainer.model.zero_grad(set_to_none=True)
    scores = _finite(total.result())
    if not work.grow:
        return Scored(examples=total.examples, scores=scores)
    grown = largest_dead(scores, mask, dict(zip(mask.alive, work.grow, strict=True)))
    signed = {name: total.sums[name].reshape(-1)[places] / total.examples for name, places in grown.items()}
    return Scored(examples=total.examples, grown=grown, gradients={n: g.astype(np.float32) for n, g in signed.items()})


def _by_activity(trainer: Trainer, work: ScoreWork, stop: Stop) -> Scored | None:
    trainer.model.eval()
    parameters = _prunable(trainer)
    watch = ActivityWatch(parameters)
    examples = 0
    for batch in _batches(trainer, work):
        with torch.no_grad(), watch:
            trainer.task.loss(trainer.model, batch)
        watch.settle()
        examples += examples_in(batch)
        if stop():
            return None
    combine = BY_ACTIVITY[work.method]
    scores = {name: combine(_floats(p), _unit(watch, name, work)) for name, p in parameters.items()}
    return Scored(examples=examples, scores=_finite(scores))


def _wanda(weight: Floats, unit: Unit) -> Floats:
    """|w| times the root mean square of its input: the norm, without its growth with the number of reads. A grouped
    convolution reads, group by group, only its own channels."""
    assert unit.squares is not None
    norms = np.sqrt(unit.squares / unit.reads).astype(np.float32)
    groups = norms.size // weight.shape[1]
    parts = zip(np.split(weight, groups), np.split(norms, groups), strict=True)
    return np.concatenate([wanda(rows, inputs) for rows, inputs in parts])


def _over_units(sums: NDArray[np.float64] | None, unit: Unit, weight: Floats) -> Floats:
    assert sums is not None
    return over_rows((sums / unit.examples).astype(np.float32), weight)


# Mean |a| and the share of outputs that are not 0 belong to units: a unit's weights are told apart by |w|.
BY_ACTIVITY: dict[str, Callable[[Floats, Unit], Floats]] = {
    "activation": lambda weight, unit: _over_units(unit.activity, unit, weight),
    "apoz": lambda weight, unit: _over_units(unit.nonzero, unit, weight),
    "wanda": _wanda,
}
assert FORMULAS.keys() | BY_ACTIVITY.keys() == FROM_CLIENTS


def _unit(watch: ActivityWatch, name: str, work: ScoreWork) -> Unit:
    if name not in watch.units:
        raise LocalError(
            f"score {work.method!r} cannot see what flows through {name!r}",
            expected="a linear layer or a convolution",
            next_step="Protect the layer with pruning.protect, or choose a score of gradients or magnitudes",
        )
    return watch.units[name]


def _batches(trainer: Trainer, work: ScoreWork) -> Iterator[Any]:
    generator = torch.Generator().manual_seed(work.seed)
    reading = UserCode(trainer.task.path, "reading `train_data`")
    return islice(guarded(batches(trainer.training, work.batch_size, generator), reading), work.batches or None)


def _prunable(trainer: Trainer) -> dict[str, Tensor]:
    parameters = dict(trainer.model.named_parameters())
    return {spec.name: parameters[spec.name] for spec in trainer.schema.prunable}


def _floats(tensor: Tensor) -> Floats:
    array: Floats = tensor.detach().float().cpu().numpy()
    return array


def _gradient(parameter: Tensor) -> Floats:
    """The gradient; zeros for a parameter that the loss did not reach."""
    return _floats(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)


def _finite(scores: dict[str, Floats]) -> dict[str, Floats]:
    for name, array in scores.items():
        if not np.isfinite(array).all():
            raise TaskError(f"the scores of {name!r} are not finite", next_step="Look for wrong values in the data")
    return scores
