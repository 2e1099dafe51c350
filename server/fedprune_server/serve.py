"""Starting a coordinator: task, port, store and one run after another, until there are no more.

What must be known before a client waits is checked first: the task file, the run files against its model, the port.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

from fedprune.allocator import share_freed_memory
from fedprune.codec import Limits as DecodeLimits
from fedprune.config import RunConfig
from fedprune.feedback import check_schema
from fedprune.report import RoundReport, RunReport
from fedprune.sockets import SocketMeter
from fedprune_server import plan
from fedprune_server.building import build_run
from fedprune_server.coordinator import Coordinator
from fedprune_server.earlier import earlier_runs
from fedprune_server.events import EndRun
from fedprune_server.exact import exact_note
from fedprune_server.extras import Page, open_page
from fedprune_server.failpoints import VARIABLE, armed
from fedprune_server.interceptors import Border
from fedprune_server.leaving import FAREWELL_S, drain, farewell
from fedprune_server.limits import Limits
from fedprune_server.listening import listen
from fedprune_server.logs import event_log
from fedprune_server.onlookers import Onlooker
from fedprune_server.pruner import Pruner
from fedprune_server.security import Plain, Secured
from fedprune_server.security import watch as watch_security
from fedprune_server.shelves import enter_runs, opened
from fedprune_server.site import Site
from fedprune_server.standing import Show, into, kept_up
from fedprune_server.terminal import Terminal
from fedprune_server.trackers import open_trackers, tracked
from fedprune_server.workshop import Workshop

log = logging.getLogger("fedprune.server")

# Addresses that stand for every address of this machine.
EVERYWHERE = ("0.0.0.0", "::", "")


@dataclass(slots=True, kw_only=True)
class Server:
    """One coordinator process. `watch` is told of each complete round, `finished` of each run, `say` of what is being
    waited for. `signalled` is the number of the signal that suspended it."""

    configs: Sequence[RunConfig]
    workshop: Workshop
    out: Path
    address: str
    watch: Callable[[RunConfig, RoundReport], None]
    finished: Callable[[RunReport], None]
    say: Callable[[str], None]
    durable: bool = True
    take_over: bool = False
    certs: Path | None = None
    failpoint: Callable[[str], None] = lambda name: None
    page: Page | None = None
    trackers: Sequence[Onlooker] = ()
    standing: Sequence[Show] = ()
    onlookers: list[Onlooker] = field(default_factory=list)
    port: int = 0
    enrol_port: int = 0
    signalled: int = 0
    outcomes: list[EndRun] = field(default_factory=list)
    _suspended: asyncio.Event = field(default_factory=asyncio.Event)
    _loop: asyncio.AbstractEventLoop = field(init=False)

    def check(self) -> None:
        """Raise what is wrong with any of the runs, before a client waits for it."""
        for config in self.configs:
            schema = self.workshop.schema_for(config)
            cost = self.workshop.cost(config)
            asked = plan.pruning_plan(config, schema, cost)
            Pruner(asked, config.run.rounds, cost=cost.per_weight if cost else None).check(schema)
            plan.control(config, schema)
            for one in plan.every_plan(config, schema):
                check_schema(plan.upload_plan(one, round_=config.run.rounds, shard=0), schema)
                check_schema(plan.broadcast_plan(one, round_=config.run.rounds), schema)
            self.workshop.first_arrays(config)
            if note := exact_note(config, schema):
                self.say(note)

    async def run(self) -> bool:
        """Serve all runs; True when every one of them finished."""
        self._loop = asyncio.get_running_loop()
        coordinator = Coordinator(
            schema=self.workshop.schema,
            frozen_digest=self.workshop.frozen_digest,
            heartbeat_s=self.configs[0].network.heartbeat_s,
        )
        note, settled = coordinator.note, coordinator.settled
        security = Plain() if self.certs is None else Secured(self.certs, note=note, settled=settled)
        largest = DecodeLimits.of_update(self.workshop.schema).max_bytes
        border = Border(Limits(self.configs[0].network, largest), security.admission)
        await security.look(border.leashes)
        server, state, self.port = await listen(coordinator, security, border, self.address)
        host = self.address.rpartition(":")[0]
        self.enrol_port = await security.open_enrolment(f"{host}:{self.configs[0].network.enrol_port}")
        ticking = asyncio.create_task(self._tick(coordinator))
        watching = asyncio.create_task(watch_security(security, border.leashes))
        site = await self._site(coordinator)
        self._heed_signals()
        beside = contextlib.AsyncExitStack()
        try:
            done = await asyncio.to_thread(enter_runs, site, self.configs)
            await self._open_onlookers(beside, coordinator, done)
            for number, config in enumerate(self.configs[done:], start=done + 1):
                await self._one_run(coordinator, site, config, server, state, more=number < len(self.configs))
                if coordinator.shutdown or self._suspended.is_set():
                    break
        finally:
            ticking.cancel()
            watching.cancel()
            await state.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
            coordinator.hang_up()
            await security.close()
            await server.stop(grace=FAREWELL_S)
            await beside.aclose()
            site.meter.close()
        return all(e.outcome == "finished" for e in self.outcomes) and done + len(self.outcomes) == len(self.configs)

    async def _open_onlookers(self, beside: contextlib.AsyncExitStack, coordinator: Coordinator, done: int) -> None:
        if self.page is not None:
            earlier = await asyncio.to_thread(earlier_runs, self.out, self.configs[:done], self.workshop)
            self.onlookers.append(await beside.enter_async_context(self.page.serve(coordinator, earlier)))
            self.say(f"live page: {self.page.url}")
        self.onlookers += await beside.enter_async_context(tracked(self.trackers))
        for show in self.standing:
            await beside.enter_async_context(kept_up(coordinator, show))

    def _watch(self, config: RunConfig, row: RoundReport) -> None:
        self.watch(config, row)
        for onlooker in self.onlookers:
            onlooker.round(row)

    def _finished(self, report: RunReport) -> None:
        """In a thread: the files were written there."""
        self.finished(report)
        for onlooker in self.onlookers:
            self._loop.call_soon_threadsafe(onlooker.end, report)

    async def _site(self, coordinator: Coordinator) -> Site:
        return Site(
            workshop=self.workshop,
            evaluator=await asyncio.to_thread(self.workshop.evaluator),
            members=coordinator.members,
            meter=SocketMeter(listening_port=self.port),
            out=self.out,
            durable=self.durable,
            take_over=self.take_over,
            failpoint=self.failpoint,
            watch=self._watch,
            finished=self._finished,
            say=self.say,
        )

    async def _one_run(
        self,
        coordinator: Coordinator,
        site: Site,
        config: RunConfig,
        server: grpc.aio.Server,
        state: health.aio.HealthServicer,
        *,
        more: bool,
    ) -> None:
        folder, store = await opened(site, config)
        logging_to = contextlib.ExitStack()
        try:
            logging_to.enter_context(event_log(folder, coordinator.facts))
            loop = asyncio.get_running_loop()
            run, resumed = await asyncio.to_thread(build_run, site, config, folder, store, more=more, loop=loop)
            if resumed is not None:
                self.say(f"resuming run {run.run_id}: {resumed.found}")
            for onlooker in self.onlookers:
                onlooker.begin(run.begun(folder, site.workshop.schema_for(config)))
            coordinator.begin(run, resumed)
            await state.set("", health_pb2.HealthCheckResponse.SERVING)
            if not coordinator.members.connected:
                self.say(f"run {config.run.name}: waiting for clients; join with: {self._invitation()}")
            suspended = asyncio.ensure_future(self._suspended.wait())
            either: set[asyncio.Future[Any]] = {run.ended, suspended}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            suspended.cancel()
            if run.ended.done():
                end = run.ended.result()
                if not more or coordinator.shutdown:
                    away_s = config.clients.grace_s if resumed else 0.0
                    if not await farewell(coordinator, run, absent_s=away_s, suspended=self._suspended, say=self.say):
                        return
                await asyncio.to_thread(run.conclude, end.outcome)
                self.outcomes.append(end)
            else:
                await drain(coordinator, run, server, state, say=self.say)
        finally:
            coordinator.run = None
            store.close()
            logging_to.close()

    def _invitation(self) -> str:
        host = self.address.rpartition(":")[0].strip("[]")
        reached = "THIS-MACHINE" if host in EVERYWHERE else host
        task = self.workshop.task.path.name
        if self.certs is not None:
            return f"fedprune client --join LINE --task {task}, with the LINE that fedprune invite SITE prints"
        return f"fedprune client --server {reached}:{self.port} --task {task}"

    async def _tick(self, coordinator: Coordinator) -> None:
        while True:
            await asyncio.sleep(coordinator.heartbeat_s)
            coordinator.drop_silent()

    def _heed_signals(self) -> None:
        """The first SIGINT or SIGTERM suspends; a second one kills."""
        loop = asyncio.get_running_loop()

        def suspend(number: signal.Signals) -> None:
            for known in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(known)
            self.signalled = number
            self.say(f"{number.name}: finishing what is in flight; a second one kills")
            self._suspended.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
                loop.add_signal_handler(number, suspend, number)


def serve(
    configs: Sequence[RunConfig],
    *,
    task: Path,
    out: Path,
    address: str,
    insecure: bool,
    take_over: bool = False,
    certs: Path | None = None,
    page: str | None = None,
    page_token: Path | None = None,
    status: Path | None = None,
    as_json: bool = False,
) -> int:
    """Serve runs one after another and give the exit code: 0 when every one of them finished. `status` is a file for
    how things stand; `as_json` prints the reports as one object at the end."""
    share_freed_memory()
    failpoints = armed(os.environ.get(VARIABLE, ""))
    if failpoints.armed:
        print(f"fedprune: failpoints are armed: {', '.join(failpoints.armed)}", file=sys.stderr)
    if insecure:
        print("fedprune: --insecure: whoever reaches this address can read and change the run", file=sys.stderr)
    workshop = Workshop.open(task, seed=configs[0].run.seed)
    terminal = Terminal(as_json=as_json)
    server = Server(
        configs=configs,
        workshop=workshop,
        out=out,
        address=address,
        take_over=take_over,
        certs=certs,
        trackers=open_trackers(list(dict.fromkeys(name for config in configs for name in config.run.track))),
        page=open_page(page, token_file=page_token, out=out) if page else None,
        failpoint=failpoints.reach,
        watch=terminal.round,
        finished=terminal.finished,
        say=terminal.say,
        standing=[*([into(status)] if status else []), *([terminal.show] if terminal.watched else [])],
    )
    server.check()
    with terminal.open():
        finished = asyncio.run(server.run())
    terminal.close()
    # A signal that comes when everything is over ends nothing: a supervisor that read a failure would begin anew.
    if finished:
        return 0
    return 128 + server.signalled if server.signalled else 1
