"""Which store holds which run.

A run's folder holds its store. If the store has an unfinished run of the same file, that one goes on; a finished one is
left alone and the new run gets a folder of its own.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from pathlib import Path

from fedprune.config import RunConfig
from fedprune.errors import ConfigError, FedpruneError, LocalError
from fedprune_server.site import Site
from fedprune_server.store import SEAL, RunRecord, RunState, SqliteStore, Store

STATE = "state"
MAX_RUNS_OF_ONE_NAME = 10_000


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


async def opened(site: Site, config: RunConfig) -> tuple[Path, SqliteStore]:
    """The folder and the store of a run. Whoever is called off meanwhile leaves no store open, and none locked."""
    opening = asyncio.ensure_future(asyncio.to_thread(open_store, site, config))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        (await opening)[1].close()
        raise


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
            create(site, config, store)
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


def create(site: Site, config: RunConfig, store: Store) -> str:
    """Enter a new run and give its id."""
    run_id = f"{config.run.name}-{uuid.uuid4().hex[:8]}"
    digest = site.workshop.schema_for(config).digest
    store.create_run(RunRecord(run_id=run_id, name=config.run.name, config_toml=config.to_toml(), schema_digest=digest))
    return run_id


def _changes(unfinished: RunRecord, config: RunConfig) -> list[str]:
    """The keys that differ. What a run computes must not change under way; how it is reached and watched may."""
    before = RunConfig.loads(unfinished.config_toml, name=f"run {unfinished.run_id}")
    return [key for key in before.differences(config) if not key.startswith(("network.", "page."))]
