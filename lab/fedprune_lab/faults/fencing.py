"""A coordinator that is stopped in mid-run, another one on the same store, and the first one waking up or being killed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import save_file

from fedprune_lab.faults.plan import TASK, Found, Plan
from fedprune_lab.faults.programs import Program, Zygote
from fedprune_lab.faults.scripted import Scripted, look_again_at_once, run_all
from fedprune_lab.faults.verdict import judge
from fedprune_lab.relay import Relay
from fedprune_server.failpoints import VARIABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """A first coordinator, stopped, and the way to start others behind the same address."""

    warm: Zygote
    folder: Path
    found: Found
    first: Program
    working: asyncio.Task[None]
    relay: Relay
    port: int

    async def start(self, log: str, *more: str) -> Program:
        """Another coordinator on the same store."""
        where = ["--out", str(self.folder / "runs"), "--address", f"127.0.0.1:{self.port}"]
        return await self.warm.start(["server", str(self.folder / "run.toml"), *where, *more], log=self.folder / log)

    async def expect(self, program: Program, code: int, words: str, problem: str) -> None:
        """How it ends, and what it says."""
        if await program.end() != code or words not in program.log.read_text():
            self.found.problems.append(problem)

    def turn_to_other(self) -> None:
        """The clients find the other coordinator at their address."""
        self.relay.point_at("127.0.0.1", self.port)
        self.relay.cut()

    async def is_locked_out(self, second: Program) -> bool:
        """Whether this coordinator ends before the clients' work does: the first one was stopped in a write."""
        ending = asyncio.create_task(second.end())
        await asyncio.wait({ending, self.working}, return_when=asyncio.FIRST_COMPLETED)
        if not self.working.done():
            return await ending != 0
        await self.working
        return False

    async def end_first(self, second: Program) -> None:
        """What a person does when the first one was stopped in a write: the second says so, and without the first the
        run goes on."""
        self.found.in_a_write = True
        names_it = f"process {self.first.pid} on"
        await self.expect(second, 1, names_it, "the second coordinator did not say who is in the middle of a write")
        await self.first.kill()
        third = await self.start("third.log")
        self.turn_to_other()
        await self.working
        await self.expect(third, 0, "", "the run did not go on")


async def play(stopped_at: str, warm: Zygote, folder: Path) -> Found:
    """The first coordinator stops at a failpoint; the second is refused, then takes over and finishes; the first wakes
    up and must write nothing more. Now and then another of its threads is in a write just then."""

    async def act(scene: _Scene) -> None:
        refused = await scene.start("refused.log")
        await scene.expect(refused, 1, "in use", "a second coordinator was not refused")
        second = await scene.start("second.log", "--take-over")
        scene.turn_to_other()
        if await scene.is_locked_out(second):
            await scene.end_first(second)
            return
        await scene.expect(second, 0, "", "the second coordinator did not finish")
        scene.first.signal(signal.SIGCONT)
        await scene.expect(scene.first, 1, "taken over", "the first coordinator did not see that it was fenced")

    return await _staged(stopped_at, warm, folder, act)


async def play_in_a_write(stopped_at: str, warm: Zygote, folder: Path) -> Found:
    """The first coordinator stops inside a transaction, where nobody can take over from it: the second says whom to
    end, and once that one is killed the run goes on."""

    async def act(scene: _Scene) -> None:
        await scene.end_first(await scene.start("second.log", "--take-over"))

    return await _staged(stopped_at, warm, folder, act)


async def _staged(stopped_at: str, warm: Zygote, folder: Path, act: Callable[[_Scene], Awaitable[None]]) -> Found:
    look_again_at_once()
    plan = Plan()
    folder.mkdir(parents=True)
    (folder / "task.py").write_text(TASK.format(inputs=plan.model.inputs, hidden=plan.model.hidden))
    save_file(plan.model.first(), folder / "first.safetensors")
    (folder / "run.toml").write_text(plan.config(folder).to_toml())
    found, port = Found(plan=plan), warm.ports.take()
    server = ["server", str(folder / "run.toml"), "--out", str(folder / "runs"), "--address", f"127.0.0.1:{port}"]
    armed = {VARIABLE: f"{stopped_at}=stop@2"}
    first = await warm.start(server, log=folder / "first.log", environment=armed)
    async with Relay("127.0.0.1", port) as relay:
        clients = [_client(plan, number, f"127.0.0.1:{relay.port}", folder) for number in range(plan.clients)]
        working = asyncio.create_task(run_all(clients))
        scene = _Scene(
            warm=warm, folder=folder, found=found, first=first, working=working, relay=relay, port=warm.ports.take()
        )
        try:
            async with asyncio.timeout(plan.limit_s):
                await _stopped(first.pid)
                await act(scene)
        except TimeoutError:
            found.problems.append(f"not over after {plan.limit_s:g} s")
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            await first.kill()
    if not found.problems:
        judge(found, clients, folder)
    return found


def _client(plan: Plan, number: int, server: str, folder: Path) -> Scripted:
    place = folder / f"client-{number}"
    return Scripted(name=f"site-{number}", schema=plan.model.schema, server=server, folder=place)


async def _stopped(pid: int) -> None:
    """Wait until a process is stopped."""
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        await asyncio.sleep(0.02)
