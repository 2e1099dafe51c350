"""A run file as the values that the rooms of the coordinator work with. Pure: the same file, the same values.

Seeds are drawn from the run's seed by name, so that no two uses share a stream and a restarted coordinator hands out
the same ones.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from fedprune.codec import EXACT
from fedprune.config import RunConfig
from fedprune.flops import Cost
from fedprune.pruning import Floors, PruningPlan
from fedprune.score_frames import PLACES_ONLY
from fedprune.tensor import Schema, Version
from fedprune.work import EvaluateWork, ReestimateWork, ScoreWork, TrainWork, UploadPlan
from fedprune_server.aggregation import Aggregator, Options, aggregator
from fedprune_server.autoplan import Bounds, Choice
from fedprune_server.budgeting import BYTES, FIXED_BYTES, budgeted
from fedprune_server.control_plan import control_plan
from fedprune_server.course import Rules
from fedprune_server.proposal import Need
from fedprune_server.trials import ControlState


def derive_seed(seed: int, *names: object) -> int:
    """A 63-bit seed for one use, from the run's seed and what the use is called."""
    text = "/".join(str(n) for n in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def rules(config: RunConfig, *, clients_evaluate: bool, scored: frozenset[int] = frozenset()) -> Rules:
    """How rounds go. `clients_evaluate` when the coordinator has no test data; `scored` as the pruner needs it."""
    clients = config.clients
    return Rules(
        rounds=config.run.rounds,
        seed=config.run.seed,
        expect=clients.expect,
        settle_s=clients.settle_s,
        share=clients.share,
        over_select=clients.over_select,
        quorum=clients.quorum,
        min_clients=clients.min_clients,
        deadline_s=clients.deadline_s,
        grace_s=clients.grace_s,
        on_miss=clients.on_miss,
        late=clients.late,
        clients_evaluate=clients_evaluate,
        evaluate_every=config.run.evaluate_every,
        scored=scored,
    )


def pruning_plan(config: RunConfig, schema: Schema, cost: Cost | None = None) -> PruningPlan:
    """What is asked of the pruner for this model; `cost` where the run file has a budget of flops."""
    pruning = config.pruning
    asked = budgeted(config, schema, cost)
    threshold = next(iter(pruning.threshold.items()), None)
    return PruningPlan(
        density=asked.density,
        measure=asked.measure,
        method=pruning.method,
        schedule="once" if pruning.density == "auto" else pruning.schedule,
        start=pruning.start,
        end=pruning.end,
        every=pruning.every,
        floors=Floors(weights=pruning.floor, share=pruning.floor_share, connect=pruning.connect),
        recovery_rounds=0,
        stages=pruning.stages,
        spread=pruning.spread,
        layers=tuple(pruning.layers.items()),
        threshold=threshold,
        regrow=pruning.regrow,
        exchange=pruning.exchange,
        levels=pruning.levels,
        merge=None if pruning.merge == "scores" else pruning.merge,
        quorum=pruning.quorum,
    )


def control(config: RunConfig, schema: Schema) -> ControlState | None:
    """Where a controller that tries pruning steps on approval begins; None where the run file sets no allowance."""
    pruning = config.pruning
    if pruning.allowance is None:
        return None
    return ControlState(
        plan=control_plan(
            pruning_plan(config, schema),
            config.run.rounds,
            schema,
            max_drop=pruning.allowance,
            auto=pruning.density == "auto",
            recovery_rounds=pruning.recovery,
        )
    )


def aggregation(config: RunConfig) -> Aggregator:
    """The rule that updates are folded by."""
    chosen = config.aggregation
    options = Options(
        rate=chosen.rate,
        momentum=chosen.momentum,
        second=chosen.second,
        floor=chosen.floor,
        trim=chosen.trim,
        attackers=chosen.attackers,
        mixing=chosen.mixing,
        clip_norm=chosen.clip_norm,
        damping=chosen.damping if config.pruning.levels else 0.0,
    )
    return aggregator(chosen.rule, options)


def train_work(config: RunConfig, *, round_: int, shard: int, teacher: Version | None = None) -> TrainWork:
    """What a client does in a round; the shard's place, not the connection, decides its batches. `teacher` is the version
    before a pruning step that recovers."""
    training = config.training
    return TrainWork(
        epochs=training.epochs,
        steps=training.steps,
        batch_size=training.batch_size,
        optimizer=training.optimizer,
        learning_rate=training.learning_rate,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        proximal=training.proximal,
        seed=derive_seed(config.run.seed, "batches", round_, shard),
        distill=config.pruning.distill,
        teacher=teacher if config.pruning.distill else None,
    )


def evaluate_work(config: RunConfig) -> EvaluateWork:
    """How a client scores a version on what it held out."""
    return EvaluateWork(batch_size=max(config.training.batch_size, 256))


def reestimate_work(config: RunConfig, *, round_: int, shard: int) -> ReestimateWork:
    """How a client measures running statistics anew, over all of its training data."""
    return ReestimateWork(
        batch_size=config.training.batch_size,
        seed=derive_seed(config.run.seed, "statistics", round_, shard),
    )


def bounds(config: RunConfig, schema: Schema) -> Bounds | None:
    """Within what the plan is chosen; None where the file fixes it."""
    compression = config.compression
    if compression.plan == "fixed":
        return None
    return Bounds(
        coarsest=compression.coarsest,
        least_top=compression.least_top,
        tolerance=compression.tolerance,
        weights=schema.parameters,
    )


def chosen(config: RunConfig, choice: Choice | None, *, round_: int) -> RunConfig:
    """The run file with the plan of one round in it: the automatic choice, or the stage that the round is in."""
    if choice is not None:
        return _with_values(config, choice.rung.values, choice.rung.top)
    begun = [stage for stage in config.compression.stages if round_ > stage[0] * config.run.rounds]
    return _with_values(config, *begun[-1][1:]) if begun else config


def every_plan(config: RunConfig, schema: Schema) -> tuple[RunConfig, ...]:
    """The run file with each plan in it that the run may come to; of an automatic choice the coarsest."""
    if within := bounds(config, schema):
        coarsest = within.ladder[-1]
        return (_with_values(config, coarsest.values, coarsest.top),)
    return (config, *(_with_values(config, values, top) for _, values, top in config.compression.stages))


def _with_values(config: RunConfig, values: str, top: float) -> RunConfig:
    keys = {"plan": "fixed", "up": values, "down": values, "top": top, "stages": ()}
    return config.model_copy(update={"compression": config.compression.model_copy(update=keys)})


def score_work(config: RunConfig, need: Need, *, round_: int, shard: int) -> ScoreWork:
    """What a client finds out about the version in force, over all of its training data."""
    return ScoreWork(
        method=need.method,
        batch_size=config.training.batch_size,
        seed=derive_seed(config.run.seed, "scores", round_, shard),
        grow=tuple(need.grow.values()),
        keep=need.keep,
        train=replace(train_work(config, round_=round_, shard=shard), epochs=1) if need.own else None,
    )


def score_plan(config: RunConfig, need: Need, *, round_: int, shard: int) -> UploadPlan:
    """How a client compresses its scores: a rank needs no more than eight bits, a vote none."""
    return UploadPlan(
        values="int8" if need.values else PLACES_ONLY,
        seed=derive_seed(config.run.seed, "rounding scores", round_, shard),
    )


def upload_plan(config: RunConfig, *, round_: int, shard: int, residual_epoch: int = 0) -> UploadPlan:
    """How a client compresses its update."""
    compression = config.compression
    return UploadPlan(
        values=compression.up,
        top=top_at(config, round_),
        seed=derive_seed(config.run.seed, "rounding", round_, shard),
        error_feedback=compression.error_feedback,
        momentum=compression.momentum,
        clip_norm=compression.clip_norm,
        exact=compression.exact,
        residual_epoch=residual_epoch,
    )


def broadcast_plan(config: RunConfig, *, round_: int) -> UploadPlan:
    """How the coordinator compresses the step of a round; a lossless `down` sends all of it."""
    compression = config.compression
    return UploadPlan(
        values=compression.down,
        top=1.0 if compression.down in EXACT else top_at(config, round_),
        seed=derive_seed(config.run.seed, "broadcast", round_),
        error_feedback=compression.error_feedback,
        exact=compression.exact,
    )


def round_bytes(config: RunConfig, schema: Schema) -> tuple[float, float]:
    """What a round moves for one client, both ways, before any coding without loss: bytes of the prunable weights at
    density 1, and bytes of everything else."""
    compression = config.compression
    each = BYTES[compression.up] * compression.top + BYTES[compression.down]
    prunable = sum(t.size for t in schema.prunable)
    return prunable * each, 2.0 * (schema.dense_bytes - 4 * prunable + FIXED_BYTES)


def top_at(config: RunConfig, round_: int) -> float:
    """The share that is sent in a round: falling exponentially from 1 over the warm-up (Lin et al., 2018)."""
    compression = config.compression
    warm_rounds = compression.warmup * config.run.rounds
    if round_ > warm_rounds or compression.top >= 1.0:
        return compression.top
    return float(compression.top ** ((round_ - 1) / warm_rounds))
