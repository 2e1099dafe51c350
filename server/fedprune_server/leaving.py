"""How a coordinator takes its leave: of a run that is over, so that its clients hear it; of one that goes on elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import grpc
from grpc_health.v1 import health, health_pb2

from fedprune_server.coordinator import Coordinator
from fedprune_server.run import Run

# How long clients get to read that the last run is over.
FAREWELL_S = 5.0
# How long uploads in flight get to finish when the process is told to end.
DRAIN_S = 30.0

Say = Callable[[str], None]


async def farewell(coordinator: Coordinator, run: Run, *, absent_s: float, suspended: asyncio.Event, say: Say) -> bool:
    """Give the clients time to hear that it is over and to hang up; those that are away, and may not know that we are
    back, `absent_s`. False when the process is told to end before they have heard: the next one has to tell them."""
    began = time.monotonic()
    if run.untold and absent_s:
        say(f"the run is over; waiting up to {absent_s:g} s for clients that may not have heard")
    while True:
        waited = time.monotonic() - began
        absent = run.untold if waited < absent_s else frozenset()
        if not (absent or (coordinator.members.connected and waited < max(FAREWELL_S, absent_s))):
            return True
        if suspended.is_set():
            if absent:
                say(f"kept: run {run.run_id} is over, and {len(absent)} of its clients may not have heard")
                say("start the coordinator again in the same way and they do")
            return not absent
        await asyncio.sleep(0.02)


async def drain(
    coordinator: Coordinator, run: Run, server: grpc.aio.Server, state: health.aio.HealthServicer, *, say: Say
) -> None:
    """Take nothing new, finish what is in flight, leave the run to the next process."""
    await state.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    coordinator.hang_up()
    await server.stop(grace=DRAIN_S)
    await run.suspend()
    rounds = run.config.run.rounds
    say(f"kept: run {run.run_id} at version {run.version}, round {run.state.round} of {rounds} is open")
    say("start the coordinator again in the same way and it goes on")
