"""A run, built from its file: begun anew, or taken up where a killed coordinator left it.

A run's folder holds its store. If the store has an unfinished run of the same file, that one goes on, and it is said
what was found; a finished one is left alone and the new run gets a folder of its own.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedprune.codec import Limits
from fedprune.config import RunConfig
from fedprune.errors import ConfigError, LocalError
from fedprune.mask import Mask
from fedprune.report import RoundReport, RunReport
from fedprune.sockets import SocketMeter
from fedprune.tensor import Schema
from fedprune_server import plan
from fedprune_server.accounting import Accounts
from fedprune_server.closing import Closing, Evaluator
from fedprune_server.members import Members
from fedprune_server.output import Output
from fedprune_server.pruner import Pruner
from fedprune_server.recovery import Resumption, resumption
from fedprune_server.rounds import RunState
from fedprune_server.run import Run
from fedprune_server.store import RunRecord, SqliteStore, Store
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
        store = SqliteStore(folder / STATE, durable=site.durable)
        unfinished = store.unfinished_run()
        if unfinished is None and not store.runs():
            return folder, store
        if unfinished is not None and unfinished.config_toml == config.to_toml():
            return folder, store
        store.close()
        if unfinished is not None:
            raise ConfigError(
                f"{folder} holds an unfinished run of another run file",
                next_step=f"Finish it with {folder / 'config.toml'}, remove the folder, or choose another [run] name",
            )
    raise LocalError("too many runs of one name", seen=config.run.name, next_step=f"Clean up {site.out}")


def build_run(
    site: Site, config: RunConfig, folder: Path, store: Store, *, more: bool, loop: asyncio.AbstractEventLoop
) -> tuple[Run, Resumption | None]:
    """The run of this file in this store, and what an earlier process left of it. Blocks: call it in a thread."""
    schema = site.workshop.schema_for(config)
    unfinished = store.unfinished_run()
    run_id = unfinished.run_id if unfinished else f"{config.run.name}-{uuid.uuid4().hex[:8]}"
    if unfinished is None:
        store.create_run(
            RunRecord(run_id=run_id, name=config.run.name, config_toml=config.to_toml(), schema_digest=schema.digest)
        )
    versions = Versions(store, run_id, schema, Limits.of_update(schema))
    output = _output(site, config, folder, schema=schema)
    resumed = _restore(site, config, run_id, store, versions, output)
    output.open()
    output.keep_mask(versions.latest.mask)
    rules = plan.rules(config, clients_evaluate=site.evaluator is None)
    closing = Closing(
        store=store,
        run_id=run_id,
        schema=schema,
        versions=versions,
        aggregator=plan.aggregation(config),
        pruner=Pruner(plan.pruning_plan(config), config.run.rounds),
        evaluate=site.evaluator,
        due=rules.due,
        broadcast=lambda n: plan.broadcast_plan(config, round_=n),
        clock=time.monotonic,
    )
    run = Run(
        config=config,
        run_id=run_id,
        store=store,
        members=site.members,
        versions=versions,
        closing=closing,
        accounts=Accounts(site.members, site.meter),
        output=output,
        state=resumed.state if resumed else RunState(rules=rules),
        more=more,
        say=site.say,
        loop=loop,
    )
    return run, resumed


def _output(site: Site, config: RunConfig, folder: Path, *, schema: Schema) -> Output:
    return Output(
        folder=folder,
        config=config,
        schema=schema,
        accuracy_source="coordinator test data" if site.evaluator else "clients' held-out share",
        socket_unavailable=site.meter.unavailable,
        on_round=lambda row: site.watch(config, row),
        on_end=site.finished,
    )


def _restore(
    site: Site, config: RunConfig, run_id: str, store: Store, versions: Versions, output: Output
) -> Resumption | None:
    """Take up what is there; a run that was killed before its first version begins now."""
    found = store.recover(run_id)
    if found.latest is None:
        first = versions.prepare(site.workshop.first_arrays(config), Mask.full(versions.schema), round_=0, plan=None)
        store.commit_version(first.record)
        versions.adopt(first)
        return None
    versions.restore(found.latest)
    output.rounds.update({n: RoundReport.from_json(text) for n, text in store.reports(run_id).items() if text})
    output.clients = len(found.shards)
    if not found.shards:
        return None
    return resumption(found, plan.rules(config, clients_evaluate=site.evaluator is None), output.rounds)
