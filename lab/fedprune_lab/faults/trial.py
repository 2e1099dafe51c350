"""One run with faults: a coordinator that dies and is started again, scripted clients, and a verdict on what is left."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

from safetensors.numpy import save_file

from fedprune.errors import FedpruneError, LocalError
from fedprune_lab.faults.plan import RUN, TASK, Found, Life, Plan
from fedprune_lab.faults.programs import Program, Zygote
from fedprune_lab.faults.scripted import Scripted, run_all
from fedprune_lab.faults.verdict import judge
from fedprune_server.failpoints import VARIABLE
from fedprune_server.shelves import STATE
from fedprune_server.store import SEAL

LONGEST_DRAIN_S = 30.0


async def play(plan: Plan, warm: Zygote, folder: Path) -> Found:
    """Play a plan in an empty folder."""
    folder.mkdir(parents=True)
    (folder / "task.py").write_text(TASK.format(inputs=plan.model.inputs, hidden=plan.model.hidden))
    save_file(plan.model.first(), folder / "first.safetensors")
    (folder / "run.toml").write_text(plan.config(folder).to_toml())
    found = Found(plan=plan)
    began = time.monotonic()
    port = warm.ports.take()
    clients = [_client(plan, number, f"127.0.0.1:{port}", folder) for number in range(plan.clients)]
    working = asyncio.create_task(run_all(clients))
    living = asyncio.create_task(_live(plan, warm, folder, port, found))
    try:
        async with asyncio.timeout(plan.limit_s):
            done, _ = await asyncio.wait({working, living}, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                await task
            await living
            await working
    except TimeoutError:
        found.problems.append(f"not over after {plan.limit_s:g} s")
    except FedpruneError as error:
        found.problems.append(str(error))
    finally:
        for task in (working, living):
            task.cancel()
        await asyncio.gather(working, living, return_exceptions=True)
    found.seconds = time.monotonic() - began
    if not found.problems:
        judge(found, clients, folder)
    return found


def _client(plan: Plan, number: int, server: str, folder: Path) -> Scripted:
    return Scripted(
        name=f"site-{number}",
        schema=plan.model.schema,
        server=server,
        folder=folder / f"client-{number}",
        mood=lambda round_: plan.moods(number, round_),
    )


async def _live(plan: Plan, warm: Zygote, folder: Path, port: int, found: Found) -> None:
    """Incarnation after incarnation, started by the same command, until one of them ends by itself."""
    arguments = ["server", str(folder / "run.toml"), "--out", str(folder / "runs"), "--address", f"127.0.0.1:{port}"]
    for life in (*plan.lives, Life(ends=frozenset({0}))):
        environment = {VARIABLE: life.failpoints} if life.failpoints else {}
        program = await warm.start(arguments, log=folder / "coordinator.log", environment=environment)
        found.starts += 1
        code = await _end(program, life)
        if code not in life.ends:
            raise LocalError("the coordinator ended by itself", seen=f"code {code}", expected=sorted(life.ends))
        if code == 0:
            return
        found.deaths += 1
        # Nobody can help being killed while it leaves: the run was over, and its store is closed.
        if code < 0 and _is_over(folder / "runs" / RUN):
            return


def _is_over(run: Path) -> bool:
    return (run / "report.json").exists() and (run / STATE / SEAL).exists()


async def _end(program: Program, life: Life) -> int:
    """The end of a life, and its exit code."""
    try:
        code = await program.end() if life.kill_after_s is None else await program.ended(life.kill_after_s)
        if code is None and life.asked:
            program.signal(signal.SIGTERM)
            code = await program.ended(LONGEST_DRAIN_S)
            if code is None:
                raise LocalError("a coordinator that was asked to end did not", expected=f"in {LONGEST_DRAIN_S:g} s")
    finally:
        end = await program.kill()
    return end if code is None else code
