"""A run, built from its file: begun anew, or taken up where a killed coordinator left it.

A run's folder holds its store. If the store has an unfinished run of the same file, that one goes on, and it is said
what was found; a finished one is left alone and the new run gets a folder of its own.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedprune.codec import Limits
from fedprune.config import RunConfig
from fedprune.content import content_digest
from fedprune.errors import ConfigError, FedpruneError, LocalError
from fedprune.mask import Mask
from fedprune.report import RoundReport, RunReport
from fedprune.sockets import SocketMeter
from fedprune.tensor import Schema
from fedprune_server import plan
from fedprune_server.accounting import Accounts
from fedprune_server.approval import awaits_evaluation
from fedprune_server.autoplan import Choice, decide
from fedprune_server.budgeting import budgeted
from fedprune_server.closing import Closing, Evaluator
from fedprune_server.course import Course, Rules
from fedprune_server.deciding import Deciding
from fedprune_server.members import Members
from fedprune_server.output import Output
from fedprune_server.placing import Placing
from fedprune_server.pruner import Pruner
from fedprune_server.recovery import Resumption, resumption
from fedprune_server.run import Run
from fedprune_server.store import SEAL, RunRecord, RunState, SqliteStore, Store, Work
from fedprune_server.versions import Versions
from fedprune_server.workshop import Workshop

STATE = "state"
MAX_RUNS_OF_ONE_NAME = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What all runs of a process share."""

    workshop: Workshop
    evaluator: Evaluator | None
    members: Members
    meter: SocketMeter
    out: Path
    durable: bool
    take_over: bool
    failpoint: Callable[[str], None]
    watch: Callable[[RunConfig, RoundReport], None]
    finished: Callable[[RunReport], None]
    say: Callable[[str], None]


def open_store(site: Site, config: RunConfig) -> tuple[Path, SqliteStore]:
    """The folder and store for this run: the one with its unfinished run, or new ones.

    Raises `ConfigError` when the unfinished run there is of another file, `StoreError` when another process has it.
    """
    for number in range(1, MAX_RUNS_OF_ONE_NAME):
        folder = site.out / (config.run.name if number == 1 else f"{config.run.name}-{number}")
        if folder.exists() and not (folder / STATE).exists():
            continue
        store = SqliteStore(folder / STATE, durable=site.durable, take_over=site.take_over, failpoint=site.failpoint)
        try:
            if not store.runs() or _holds(store, config, folder):
                return folder, store
        except FedpruneError:
            store.close()
            raise
        store.close()
    raise LocalError("too many runs of one name", seen=config.run.name, next_step=f"Clean up {site.out}")


def enter_runs(site: Site, configs: Sequence[RunConfig]) -> int:
    """Enter all runs into their stores and give the number of the first that is to be done.

    A coordinator that is killed between two runs, or in the instant after the last one, then finds, when it is started
    again in the same way, which of them are over. Blocks: call it in a thread.
    """
    if _is_just_over(site, configs[-1]):
        site.say(f"run {configs[-1].run.name!r} was over when its coordinator was killed: nothing is left to do")
        return len(configs)
    begun = [number for number, config in enumerate(configs) if _is_begun(site, config)]
    first = begun[0] if begun else 0
    for config in configs[first:]:
        _, store = open_store(site, config)
        if store.unfinished_run() is None:
            _create(site, config, store)
        store.close()
    return first


def _is_begun(site: Site, config: RunConfig) -> bool:
    for folder in (site.out / config.run.name, *site.out.glob(f"{config.run.name}-*")):
        if (folder / STATE).exists():
            store = SqliteStore(folder / STATE, durable=site.durable, take_over=site.take_over)
            begun = store.unfinished_run() is not None
            store.close()
            if begun:
                return True
    return False


def _is_just_over(site: Site, config: RunConfig) -> bool:
    """Whether the last of these runs was marked as finished by a process that could not put its store in order. Asked
    once: from then on the store is in order, and the same command begins a new run."""
    for folder in (site.out / config.run.name, *site.out.glob(f"{config.run.name}-*")):
        state = folder / STATE
        if not state.exists() or (state / SEAL).exists():
            continue
        store = SqliteStore(state, durable=site.durable, take_over=site.take_over)
        runs = store.runs()
        over = bool(runs) and runs[-1].state is RunState.FINISHED and not _changes(runs[-1], config)
        store.close()
        if over:
            return True
    return False


def _holds(store: Store, config: RunConfig, folder: Path) -> bool:
    """Whether the store is this run's: it holds it unfinished, or one that no client has worked for yet and that gives
    way to it."""
    unfinished = store.unfinished_run()
    if unfinished is None:
        return False
    changed = _changes(unfinished, config)
    if changed and unfinished.state is not RunState.WAITING:
        raise ConfigError(
            f"{folder} holds an unfinished run of another run file",
            seen=f"another {', '.join(changed)}",
            next_step=f"Finish it with {folder / 'config.toml'}, remove the folder, or choose another [run] name",
        )
    if changed:
        store.set_run_state(unfinished.run_id, RunState.STOPPED)
    return True


def _create(site: Site, config: RunConfig, store: Store) -> str:
    run_id = f"{config.run.name}-{uuid.uuid4().hex[:8]}"
    digest = site.workshop.schema_for(config).digest
    store.create_run(RunRecord(run_id=run_id, name=config.run.name, config_toml=config.to_toml(), schema_digest=digest))
    return run_id


def _changes(unfinished: RunRecord, config: RunConfig) -> list[str]:
    """The keys that differ. What a run computes must not change under way; how it is reached and watched may."""
    before = RunConfig.loads(unfinished.config_toml, name=f"run {unfinished.run_id}")
    return [key for key in before.differences(config) if not key.startswith(("network.", "page."))]


def build_run(
    site: Site, config: RunConfig, folder: Path, store: Store, *, more: bool, loop: asyncio.AbstractEventLoop
) -> tuple[Run, Resumption | None]:
    """The run of this file in this store, and what an earlier process left of it. Blocks: call it in a thread."""
    schema = site.workshop.schema_for(config)
    unfinished = store.unfinished_run()
    if unfinished is not None and unfinished.schema_digest != schema.digest:
        raise ConfigError(
            f"{folder} holds an unfinished run of another model",
            seen=schema.digest[:16],
            expected=unfinished.schema_digest[:16],
            next_step="Start it with the task file it began with, remove the folder, or choose another [run] name",
        )
    run_id = unfinished.run_id if unfinished else _create(site, config, store)
    site.failpoint("run-found")
    versions = Versions(store, run_id, schema, Limits.of_update(schema))
    output = _output(site, config, folder, schema=schema)
    cost = site.workshop.cost(config)
    asked = plan.pruning_plan(config, schema, cost)
    pruner = Pruner(asked, config.run.rounds, seed=config.run.seed, cost=cost.per_weight if cost else None)
    if words := budgeted(config, schema, cost).says:
        site.say(f"budget: {words}")
    pruner.check(schema)
    resumed = _restore(site, config, run_id, store, versions, output, pruner)
    output.open(unpublished=resumed.unpublished if resumed else None)
    output.keep_mask(versions.latest.mask)
    rules = _rules(site, config, pruner)
    deciding = Deciding(store=store, run_id=run_id, versions=versions, reports=rules.evaluates)
    if resumed is not None and resumed.judged:
        deciding.catch_up(versions.latest.record.round)
    bounds = plan.bounds(config, schema)

    def choose(round_: int) -> Choice | None:
        rows = [row for number, row in sorted(output.rounds.items()) if number < round_]
        return decide(rows, bounds) if bounds else None

    accounts = Accounts(site.members, site.meter)
    accounts.restore(store.entries(run_id))
    closing = Closing(
        store=store,
        run_id=run_id,
        schema=schema,
        versions=versions,
        aggregator=plan.aggregation(config),
        pruner=pruner,
        evaluate=site.evaluator,
        due=rules.due,
        broadcast=lambda n: plan.broadcast_plan(plan.chosen(config, choose(n), round_=n), round_=n),
        clock=time.monotonic,
    )
    run = Run(
        config=config,
        run_id=run_id,
        store=store,
        members=site.members,
        versions=versions,
        closing=closing,
        deciding=deciding,
        accounts=accounts,
        output=output,
        state=resumed.state if resumed else Course(rules=rules),
        more=more,
        choose=choose,
        placing=_placing(site, config, schema),
        first_sha256=content_digest(schema, site.workshop.first_arrays(config)),
        say=site.say,
        at=site.failpoint,
        loop=loop,
    )
    return run, resumed


def _rules(site: Site, config: RunConfig, pruner: Pruner) -> Rules:
    return plan.rules(config, clients_evaluate=site.evaluator is None, scored=pruner.scored_rounds)


def _placing(site: Site, config: RunConfig, schema: Schema) -> Placing:
    dense_bytes, fixed_bytes = plan.round_bytes(config, schema)
    return Placing(
        densities=config.pruning.levels,
        by_hand=config.clients.densities,
        deadline_s=config.clients.deadline_s,
        dense_bytes=dense_bytes,
        fixed_bytes=fixed_bytes,
        member=site.members.__getitem__,
    )


def _output(site: Site, config: RunConfig, folder: Path, *, schema: Schema) -> Output:
    return Output(
        folder=folder,
        config=config,
        schema=schema,
        accuracy_source="coordinator test data" if site.evaluator else "clients' held-out share",
        socket_unavailable=site.meter.unavailable,
        on_round=lambda row: site.watch(config, row),
        on_end=site.finished,
        at=site.failpoint,
    )


def _restore(
    site: Site, config: RunConfig, run_id: str, store: Store, versions: Versions, output: Output, pruner: Pruner
) -> Resumption | None:
    """Take up what is there; a run that was killed before its first version begins now."""
    found = store.recover(run_id)
    if found.latest is None:
        arrays, mask = site.workshop.first_arrays(config), Mask.full(versions.schema)
        # A mask chosen before anybody trains is part of the first version, unless clients have to score it first.
        asks = pruner.needs(round=0, mask=mask) is not None
        proposal = None if asks else pruner.propose(round=0, weights=arrays, mask=mask, next_mask_version=1)
        if proposal:
            mask = proposal.mask
            mask.apply(arrays)
            output.explain_first(proposal)
        levels = pruner.cut(weights=arrays, mask=mask, first_version=mask.version + 1) if pruner.cuts(0) else {}
        controlled = plan.control(config, versions.schema)
        first = versions.prepare(arrays, mask, round_=0, plan=None, control=controlled, levels=levels)
        store.commit_version(first.record)
        versions.adopt(first)
        return None
    versions.restore(found.latest)
    if pruner.beliefs is not None and versions.latest.kept.beliefs:
        pruner.beliefs.restore(versions.latest.kept.beliefs)
    output.rounds.update({n: RoundReport.from_json(text) for n, text in store.reports(run_id).items() if text})
    output.clients = len(found.shards)
    if not found.shards:
        site.say(f"resuming run {run_id}: no client had begun to work")
        return None
    latest = found.latest.round
    return resumption(
        found,
        _rules(site, config, pruner),
        output.rounds,
        awaited=awaits_evaluation(versions.control),
        decided=Work.EVALUATE in store.frozen(run_id, latest),
    )
