"""Starting a coordinator: task, port, store and one run after another, until there are no more.

What must be known before a client waits is checked first: the task file, the run files against its model, the port.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from fedprune.codec import Limits
from fedprune.config import RunConfig
from fedprune.errors import ConfigError, LocalError
from fedprune.framing import MAX_MESSAGE_BYTES
from fedprune.mask import Mask
from fedprune.report import RoundReport
from fedprune.sockets import SocketMeter
from fedprune.v1 import coordinator_pb2_grpc as rpc
from fedprune_server import plan
from fedprune_server.accounting import Accounts
from fedprune_server.aggregation import fedavg
from fedprune_server.closing import Closing, Evaluator
from fedprune_server.coordinator import Coordinator
from fedprune_server.events import EndRun
from fedprune_server.interceptors import Border
from fedprune_server.output import Output
from fedprune_server.pruner import Pruner
from fedprune_server.rounds import RunState
from fedprune_server.run import Run
from fedprune_server.service import CoordinatorService
from fedprune_server.store import RunRecord, SqliteStore, Store
from fedprune_server.summary import byte_table
from fedprune_server.versions import Versions
from fedprune_server.workshop import Workshop

log = logging.getLogger("fedprune.server")

SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 120_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.so_reuseport", 0),
)
# How long clients get to read that the last run is over.
FAREWELL_S = 5.0
STATE = "state"

Watcher = Callable[[RunConfig, RoundReport], None]


@dataclass(slots=True, kw_only=True)
class Server:
    """One coordinator process. `watch` is told of each complete round, `say` of what is being waited for."""

    configs: Sequence[RunConfig]
    workshop: Workshop
    out: Path
    address: str
    watch: Watcher
    say: Callable[[str], None]
    durable: bool = True
    port: int = 0
    outcomes: list[EndRun] = field(default_factory=list)

    def check(self) -> None:
        """Raise what is wrong with any of the runs, before a client waits for it."""
        for config in self.configs:
            Pruner(plan.pruning_plan(config), config.run.rounds).check(self.workshop.schema_for(config))
            self.workshop.first_arrays(config)

    async def run(self) -> bool:
        """Serve all runs; True when every one of them finished."""
        coordinator = Coordinator(
            schema=self.workshop.schema,
            frozen_digest=self.workshop.frozen_digest,
            heartbeat_s=self.configs[0].network.heartbeat_s,
        )
        server, state = await self._listen(coordinator)
        ticking = asyncio.create_task(self._tick(coordinator))
        meter = SocketMeter(listening_port=self.port)
        evaluator = await asyncio.to_thread(self.workshop.evaluator)
        self._heed_signals(coordinator)
        try:
            for number, config in enumerate(self.configs):
                more = number + 1 < len(self.configs)
                await self._one_run(coordinator, config, evaluator, meter, state, more=more)
                if coordinator.shutdown:
                    break
        finally:
            ticking.cancel()
            await state.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
            await self._farewell(coordinator)
            await server.stop(grace=FAREWELL_S)
            meter.close()
        return all(end.outcome == "finished" for end in self.outcomes) and len(self.outcomes) == len(self.configs)

    async def _listen(self, coordinator: Coordinator) -> tuple[grpc.aio.Server, health.aio.HealthServicer]:
        server = grpc.aio.server(interceptors=[Border()], options=SERVER_OPTIONS)
        rpc.add_CoordinatorServicer_to_server(CoordinatorService(coordinator), server)
        state = health.aio.HealthServicer()
        await state.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(state, server)
        try:
            self.port = server.add_insecure_port(self.address)
        except RuntimeError as error:
            raise ConfigError(
                "cannot listen: the port is in use, or the address is not this machine's",
                seen=self.address,
                next_step="Give another --address, or stop the other coordinator",
            ) from error
        await server.start()
        return server, state

    async def _one_run(
        self,
        coordinator: Coordinator,
        config: RunConfig,
        evaluator: Evaluator | None,
        meter: SocketMeter,
        state: health.aio.HealthServicer,
        *,
        more: bool,
    ) -> None:
        folder = free_folder(self.out, config.run.name)
        store = await asyncio.to_thread(SqliteStore, folder / STATE, durable=self.durable)
        try:
            run = await asyncio.to_thread(
                self._build, coordinator, config, folder, store, evaluator, meter, asyncio.get_running_loop(), more
            )
            coordinator.begin(run)
            await state.set("", health_pb2.HealthCheckResponse.SERVING)
            self.outcomes.append(await run.ended)
        finally:
            coordinator.run = None
            store.close()

    def _build(
        self,
        coordinator: Coordinator,
        config: RunConfig,
        folder: Path,
        store: Store,
        evaluator: Evaluator | None,
        meter: SocketMeter,
        loop: asyncio.AbstractEventLoop,
        more: bool,
    ) -> Run:
        schema = self.workshop.schema_for(config)
        pruner = Pruner(plan.pruning_plan(config), config.run.rounds)
        run_id = f"{config.run.name}-{uuid.uuid4().hex[:8]}"
        store.create_run(
            RunRecord(run_id=run_id, name=config.run.name, config_toml=config.to_toml(), schema_digest=schema.digest)
        )
        rules = plan.rules(config, clients_evaluate=evaluator is None)
        versions = Versions(store, run_id, schema, Limits.of_update(schema))
        first = versions.prepare(self.workshop.first_arrays(config), Mask.full(schema), round_=0, step=False)
        store.commit_version(first.record)
        versions.adopt(first)
        output = Output(
            folder=folder,
            config=config,
            schema=schema,
            accuracy_source="coordinator test data" if evaluator else "clients' held-out share",
            socket_unavailable=meter.unavailable,
            on_round=lambda row: self.watch(config, row),
            on_end=lambda report: print(byte_table(report), flush=True),
        )
        output.open()
        output.keep_mask(first.mask)
        closing = Closing(
            store=store,
            run_id=run_id,
            schema=schema,
            versions=versions,
            aggregator=fedavg(rate=config.aggregation.rate),
            pruner=pruner,
            evaluate=evaluator,
            evaluates=lambda n: n == rules.rounds or (rules.evaluate_every > 0 and n % rules.evaluate_every == 0),
            clock=time.monotonic,
        )
        return Run(
            config=config,
            run_id=run_id,
            store=store,
            members=coordinator.members,
            versions=versions,
            closing=closing,
            accounts=Accounts(coordinator.members, meter),
            output=output,
            state=RunState(rules=rules),
            more=more,
            say=self.say,
            loop=loop,
        )

    async def _tick(self, coordinator: Coordinator) -> None:
        while True:
            await asyncio.sleep(coordinator.heartbeat_s)
            coordinator.drop_silent()

    async def _farewell(self, coordinator: Coordinator) -> None:
        """Give the clients time to hear that it is over and to hang up."""
        deadline = time.monotonic() + FAREWELL_S
        while coordinator.members.connected and time.monotonic() < deadline:
            await asyncio.sleep(0.02)

    def _heed_signals(self, coordinator: Coordinator) -> None:
        """The first SIGINT or SIGTERM ends the run after what is committed; a second one the process."""
        loop = asyncio.get_running_loop()

        def stop(name: str) -> None:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
            self.say(f"{name}: ending; a second one kills")
            reply = coordinator.stop(f"stopped by {name}", shutdown=True)
            self.say(f"kept: {reply.kept}")

        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
                loop.add_signal_handler(number, stop, number.name)


def free_folder(out: Path, name: str) -> Path:
    """`out`/name, or the first of name-2, name-3, ... that holds no run yet."""
    for number in range(1, 10_000):
        folder = out / (name if number == 1 else f"{name}-{number}")
        if not folder.exists():
            return folder
    raise LocalError("too many runs of one name", seen=name, next_step=f"Clean up {out}")


def serve(
    configs: Sequence[RunConfig], *, task: Path, out: Path, address: str, insecure: bool, watch: Watcher | None = None
) -> int:
    """Serve runs one after another and give the exit code: 0 when every one of them finished."""
    if insecure:
        print("fedprune: --insecure: whoever reaches this address can read and change the run", file=sys.stderr)
    workshop = Workshop.open(task, seed=configs[0].run.seed)
    server = Server(
        configs=configs,
        workshop=workshop,
        out=out,
        address=address,
        watch=watch or print_round,
        say=lambda text: print(f"fedprune: {text}", file=sys.stderr, flush=True),
    )
    server.check()
    return 0 if asyncio.run(server.run()) else 1


def print_round(config: RunConfig, row: RoundReport) -> None:
    """One line a round."""
    accuracy = "" if row.accuracy is None else f"accuracy {row.accuracy:7.2%}  "
    moved = row.socket or row.payload
    print(
        f"round {row.round:3d}/{config.run.rounds}  {accuracy}density {row.density:6.1%}  "
        f"up {moved.up:>12,} B  down {moved.down:>12,} B  {row.seconds:6.2f} s",
        flush=True,
    )
