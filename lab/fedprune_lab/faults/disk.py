"""A disk that is really full: a small file system in memory, under the coordinator or under a client. Needs root."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.numpy import save_file

from fedprune_lab.faults import clients as real
from fedprune_lab.faults.plan import RUN, TASK, Found, Plan
from fedprune_lab.faults.programs import Zygote
from fedprune_lab.faults.scripted import Scripted, look_again_at_once, run_all
from fedprune_lab.faults.verdict import judge

SIZE_BYTES = 12 << 20
LOOK_S = 0.02


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 12 MiB at `folder`."""
    folder.mkdir(parents=True)
    options = f"size={SIZE_BYTES},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "fedprune-small", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take all the room there is; the file that has it."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
    return ballast


async def play_coordinator(warm: Zygote, folder: Path) -> Found:
    """The coordinator's disk fills up after a round; it is started again once there is room."""
    look_again_at_once()
    plan = Plan()
    found = Found(plan=plan)
    folder.mkdir(parents=True)
    (folder / "task.py").write_text(TASK.format(inputs=plan.model.inputs, hidden=plan.model.hidden))
    save_file(plan.model.first(), folder / "first.safetensors")
    (folder / "run.toml").write_text(plan.config(folder).to_toml())
    address, log = f"127.0.0.1:{warm.ports.take()}", folder / "coordinator.log"
    with small_disk(folder / "runs") as disk:
        server = ["server", str(folder / "run.toml"), "--out", str(disk), "--address", address]
        first = await warm.start(server, log=log)
        schema, names = plan.model.schema, [f"site-{number}" for number in range(plan.clients)]
        clients = [Scripted(name=name, schema=schema, server=address, folder=folder / name) for name in names]
        working = asyncio.create_task(run_all(clients))
        try:
            async with asyncio.timeout(plan.limit_s):
                await _until(lambda: _lines(disk / RUN / "rounds.jsonl") >= 1)
                ballast = fill(disk)
                if await first.end() != 1 or "Free space" not in log.read_text():
                    found.problems.append("a full disk did not end the coordinator with its reason")
                ballast.unlink()
                again = await warm.start(server, log=log)
                await working
                if await again.end():
                    found.problems.append("it did not go on when there was room")
        except TimeoutError:
            found.problems.append(f"not over after {plan.limit_s:g} s")
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        if not found.problems:
            judge(found, clients, folder)
    return found


async def play_client(warm: Zygote, folder: Path) -> real.Found:
    """A client's disk fills up: it says so and sits rounds out, and works again once there is room."""
    plan = real.Plan(clients=2, rounds=60)
    log = folder / "site-0" / "client.log"

    async def squeeze() -> None:
        ballast = folder / "state" / "ballast"
        await _until(lambda: (folder / "site-0" / "trained.log").exists())
        # A result that gets its receipt makes room for the next one: that goes, too.
        while "cannot seal a result" not in log.read_text():
            ballast = fill(folder / "state")
            await asyncio.sleep(LOOK_S)
        ballast.unlink()
        said = log.read_text().count("cannot seal a result")
        trained = _lines(folder / "site-0" / "trained.log")
        await _until(lambda: _lines(folder / "site-0" / "trained.log") > trained + 2)
        if log.read_text().count("cannot seal a result") > said + 1:
            raise AssertionError("it did not seal again when there was room")

    with small_disk(folder / "state"):
        squeezing = asyncio.create_task(squeeze())
        try:
            found = await real.play(plan, warm, folder)
            if not squeezing.done():
                found.problems.append("the run was over before the disk was full and empty again")
            else:
                squeezing.result()
        finally:
            squeezing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await squeezing
    return found


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


async def _until(so: Callable[[], bool]) -> None:
    while not so():
        await asyncio.sleep(LOOK_S)
