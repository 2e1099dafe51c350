"""A coordinator that is stopped in mid-run, a second one on the same store, and the first one waking up again."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from safetensors.numpy import save_file

from fedprune_lab.faults.plan import TASK, Found, Plan
from fedprune_lab.faults.programs import Zygote, free_port
from fedprune_lab.faults.scripted import Scripted, look_again_at_once, run_all
from fedprune_lab.faults.verdict import judge
from fedprune_lab.relay import Relay
from fedprune_server.failpoints import VARIABLE


async def play(stopped_at: str, warm: Zygote, folder: Path) -> Found:
    """The first coordinator stops at a failpoint; the second is refused, then takes over and finishes; the first wakes
    up and must write nothing more."""
    look_again_at_once()
    plan = Plan()
    folder.mkdir(parents=True)
    (folder / "task.py").write_text(TASK.format(inputs=plan.model.inputs, hidden=plan.model.hidden))
    save_file(plan.model.first(), folder / "first.safetensors")
    (folder / "run.toml").write_text(plan.config(folder).to_toml())
    found, ports = Found(plan=plan), (free_port(), free_port())

    def arguments(port: int, *more: str) -> list[str]:
        where = ["--out", str(folder / "runs"), "--address", f"127.0.0.1:{port}"]
        return ["server", str(folder / "run.toml"), *where, *more]

    first = await warm.start(
        arguments(ports[0]), log=folder / "first.log", environment={VARIABLE: f"{stopped_at}=stop@2"}
    )
    async with Relay("127.0.0.1", ports[0]) as relay:
        clients = [
            Scripted(
                name=f"site-{n}",
                schema=plan.model.schema,
                server=f"127.0.0.1:{relay.port}",
                folder=folder / f"client-{n}",
            )
            for n in range(plan.clients)
        ]
        working = asyncio.create_task(run_all(clients))
        try:
            async with asyncio.timeout(plan.limit_s):
                await _stopped(first.pid)
                refused = await warm.start(arguments(ports[1]), log=folder / "refused.log")
                if await refused.end() != 1 or "in use" not in (folder / "refused.log").read_text():
                    found.problems.append("a second coordinator was not refused")
                second = await warm.start(arguments(ports[1], "--take-over"), log=folder / "second.log")
                relay.point_at("127.0.0.1", ports[1])
                relay.cut()
                await working
                if await second.end():
                    found.problems.append("the second coordinator did not finish")
                first.signal(signal.SIGCONT)
                if await first.end() != 1 or "taken over" not in (folder / "first.log").read_text():
                    found.problems.append("the first coordinator did not see that it was fenced")
        except TimeoutError:
            found.problems.append(f"not over after {plan.limit_s:g} s")
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            await first.kill()
    if not found.problems:
        judge(found, clients, folder)
    return found


async def _stopped(pid: int) -> None:
    """Wait until a process is stopped."""
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        await asyncio.sleep(0.02)
