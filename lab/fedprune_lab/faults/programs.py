"""Coordinators and clients as processes that can be started, killed and waited for, many times over."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedprune_lab.jobs import Job
from fedprune_lab.ports import Ports


@dataclass(slots=True, kw_only=True)
class Program:
    """A running command line. `code` comes when it has ended, negative for the signal that killed it."""

    pid: int
    log: Path
    code: asyncio.Future[int]

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return not self.code.done()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def kill(self) -> int:
        """Kill it and wait for its end."""
        self.signal(signal.SIGKILL)
        return await self.end()

    async def end(self) -> int:
        """Wait for its end. Whoever stops waiting does not take the answer from others."""
        return await asyncio.shield(self.code)

    async def ended(self, timeout_s: float) -> int | None:
        """Its exit code, or None when it has not ended in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                return await self.end()
        return None


@dataclass(slots=True)
class Zygote:
    """The warm process. `start` gives a running program in about a tenth of a second; `ports` are for them to listen on."""

    _process: asyncio.subprocess.Process
    # Programs that were asked for, by the number of the question, and the ends of those that run, by process.
    _asked: dict[str, asyncio.Future[int]] = field(default_factory=dict)
    _ends: dict[int, asyncio.Future[int]] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    ports: Ports = field(default_factory=Ports)

    async def start(
        self, arguments: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None
    ) -> Program:
        """Start `fedprune` with these arguments; what it prints is appended to `log`."""
        assert self._process.stdin is not None
        job = Job(name=f"program {next(self._numbers)}", arguments=list(arguments), log=str(log))
        asked = {"name": job.name, "arguments": job.arguments, "log": job.log, "environment": dict(environment or {})}
        started = self._asked[job.name] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        await self._process.stdin.drain()
        pid = await started
        return Program(pid=pid, log=log, code=self._ends[pid])

    async def listen(self) -> None:
        """Take in what the zygote tells, until it ends."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self._hear(json.loads(line))

    def _hear(self, told: dict[str, Any]) -> None:
        if "started" in told:
            self._ends[told["started"]] = asyncio.get_running_loop().create_future()
            asked = self._asked.pop(told["name"])
            if asked.cancelled():
                # Who asked has been called off: nobody would ever end it.
                os.kill(told["started"], signal.SIGKILL)
            else:
                asked.set_result(told["started"])
        elif "ended" in told:
            self._ends[told["ended"]].set_result(told["code"])


@asynccontextmanager
async def zygote() -> AsyncIterator[Zygote]:
    """A warm process, and the end of all it started."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "fedprune_lab.faults.zygote",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={"OMP_NUM_THREADS": "1"} | os.environ,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    await process.stdout.readline()  # it is warm
    warm = Zygote(process)
    listening = asyncio.create_task(warm.listen())
    try:
        yield warm
    finally:
        warm.ports.close()
        process.stdin.close()
        await process.wait()
        await listening
