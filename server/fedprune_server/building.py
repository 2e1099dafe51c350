"""A run, built from its file: begun anew, or taken up where a killed coordinator left it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from fedprune.codec import Limits
from fedprune.config import RunConfig
from fedprune.content import content_digest
from fedprune.errors import ConfigError
from fedprune.mask import Mask
from fedprune.pruning.model import dear_floors
from fedprune.report import RoundReport
from fedprune.tensor import Role, Schema
from fedprune_server import plan
from fedprune_server.accounting import Accounts
from fedprune_server.approval import awaits_evaluation
from fedprune_server.autoplan import Choice, decide
from fedprune_server.budgeting import budgeted
from fedprune_server.closing import Closing
from fedprune_server.course import Course, Rules
from fedprune_server.deciding import Deciding
from fedprune_server.desk import Desk
from fedprune_server.incoming import Incoming
from fedprune_server.output import Output
from fedprune_server.placing import Placing
from fedprune_server.prepared import Arrays
from fedprune_server.pruner import Pruner
from fedprune_server.recovery import Resumption, resumption
from fedprune_server.run import Run
from fedprune_server.settling import Settling
from fedprune_server.shelves import create
from fedprune_server.site import Site
from fedprune_server.store import Store, VersionRecord, Work
from fedprune_server.versions import Versions


def build_run(
    site: Site, config: RunConfig, folder: Path, store: Store, *, more: bool, loop: asyncio.AbstractEventLoop
) -> tuple[Run, Resumption | None]:
    """The run of this file in this store, and what an earlier process left of it. Blocks: call it in a thread."""
    schema = site.workshop.schema_for(config)
    run_id = _entered(site, config, folder, store, schema)
    site.failpoint("run-found")
    versions = Versions(store, run_id, schema, Limits.of_update(schema))
    output = _output(site, config, folder, schema=schema)
    pruner = _pruner(site, config, schema)
    # Drawn once: what clients compare theirs with is what the run begins with.
    drawn = site.workshop.first_arrays(config)
    first_sha256 = content_digest(schema, drawn)
    resumed = _restore(site, config, store, versions, output, pruner, drawn)
    output.open(unpublished=resumed.unpublished if resumed else None)
    output.keep_mask(versions.latest.mask)
    choose = _chooser(config, schema, output)
    settling = _settling(site, config, store, versions, output, pruner, choose)
    if resumed is not None and resumed.judged:
        settling.deciding.catch_up(versions.latest.record.round)
    desk = Desk(
        config=config,
        run_id=run_id,
        schema=schema,
        members=site.members,
        choose=choose,
        first_sha256=first_sha256,
        epoch=lambda: versions.control.rollbacks if versions.control else 0,
        teacher=lambda: versions.control.trial.snapshot if versions.control and versions.control.trial else None,
    )
    state = resumed.state if resumed else Course(rules=_rules(site, config, pruner))
    run = Run(config=config, members=site.members, settling=settling, desk=desk, state=state, more=more, loop=loop)
    return run, resumed


def _entered(site: Site, config: RunConfig, folder: Path, store: Store, schema: Schema) -> str:
    """The id of the store's unfinished run, else of a new one."""
    unfinished = store.unfinished_run()
    if unfinished is None:
        return create(site, config, store)
    if unfinished.schema_digest != schema.digest:
        raise ConfigError(
            f"{folder} holds an unfinished run of another model",
            seen=schema.digest[:16],
            expected=unfinished.schema_digest[:16],
            next_step="Start it with the task file it began with, remove the folder, or choose another [run] name",
        )
    return unfinished.run_id


def _pruner(site: Site, config: RunConfig, schema: Schema) -> Pruner:
    if config.pruning.distill and site.workshop.task.train is not None:
        raise ConfigError(
            "pruning.distill works in fedprune's own loop, and the task brings a `train` of its own",
            party=site.workshop.task.path.name,
            next_step="Leave pruning.distill out, or `train`",
        )
    cost = site.workshop.cost(config)
    asked = plan.pruning_plan(config, schema, cost)
    pruner = Pruner(asked, config.run.rounds, seed=config.run.seed, cost=cost.per_weight if cost else None)
    if words := budgeted(config, schema, cost).says:
        site.say(f"budget: {words}")
    pruner.check(schema)
    if words := dear_floors(asked, schema):
        site.say(f"density {asked.density:.4g}: {words}")
    return pruner


def _chooser(config: RunConfig, schema: Schema, output: Output) -> Callable[[int], Choice | None]:
    """What `plan = "auto"` chooses for a round, from the rows of those before it."""
    bounds = plan.bounds(config, schema)

    def choose(round_: int) -> Choice | None:
        if bounds is None:
            return None
        return decide([row for number, row in sorted(output.rounds.items()) if number < round_], bounds)

    return choose


def _settling(
    site: Site,
    config: RunConfig,
    store: Store,
    versions: Versions,
    output: Output,
    pruner: Pruner,
    choose: Callable[[int], Choice | None],
) -> Settling:
    run_id, rules = versions.run_id, _rules(site, config, pruner)
    accounts = Accounts(site.members, site.meter)
    accounts.restore(store.entries(run_id))
    closing = Closing(
        store=store,
        versions=versions,
        incoming=Incoming(store=store, versions=versions, aggregator=plan.aggregation(config), pruner=pruner),
        pruner=pruner,
        evaluate=site.evaluator,
        due=rules.due,
        broadcast=lambda n: plan.broadcast_plan(plan.chosen(config, choose(n), round_=n), round_=n),
        clock=time.monotonic,
        remeasures=_remeasures(config, versions.schema),
    )
    return Settling(
        run_id=run_id,
        store=store,
        versions=versions,
        closing=closing,
        deciding=Deciding(store=store, run_id=run_id, versions=versions, reports=rules.evaluates),
        accounts=accounts,
        output=output,
        placing=_placing(site, config, versions.schema),
        choose=choose,
        say=site.say,
        at=site.failpoint,
        keep_updates=config.run.keep_updates,
    )


def _rules(site: Site, config: RunConfig, pruner: Pruner) -> Rules:
    return plan.rules(config, clients_evaluate=site.evaluator is None, scored=pruner.scored_rounds)


def _remeasures(config: RunConfig, schema: Schema) -> bool:
    return config.pruning.reestimate and bool(schema.of(Role.BUFFER))


def _placing(site: Site, config: RunConfig, schema: Schema) -> Placing:
    dense_bytes, fixed_bytes = plan.round_bytes(config, schema)
    return Placing(
        densities=config.pruning.levels,
        by_hand=config.clients.densities,
        deadline_s=config.clients.deadline_s,
        dense_bytes=dense_bytes,
        fixed_bytes=fixed_bytes,
        member=site.members.__getitem__,
        each=config.pruning.readjusts,
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
        count=lambda: site.workshop.counted(config),
    )


def _restore(
    site: Site, config: RunConfig, store: Store, versions: Versions, output: Output, pruner: Pruner, drawn: Arrays
) -> Resumption | None:
    """Take up what is there; a run that was killed before its first version begins now."""
    run_id = versions.run_id
    found = store.recover(run_id)
    if found.latest is None:
        arrays, mask = dict(drawn), Mask.full(versions.schema)
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
        unmeasured=_remeasures(config, versions.schema) and _is_unmeasured(store, found.latest, output.rounds),
        measured=Work.REESTIMATE in store.frozen(run_id, latest),
    )


def _is_unmeasured(store: Store, latest: VersionRecord, rows: Mapping[int, RoundReport]) -> bool:
    """Whether the mask changed with this version and no version of the same round followed: neither one with statistics
    measured anew, nor one that undid it."""
    row = rows.get(latest.round)
    if row is None or not row.mask_changed or latest.version.model == 0:
        return False
    return store.version(latest.run_id, latest.version.model - 1).round != latest.round
