"""A federation in one event loop, over real sockets: the coordinator as it is served, clients as they run.

What a test needs to bend is bent at the edges: a client's link can be delayed or made to lie, nothing else is replaced.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import load_file

from fedprune.config import RunConfig
from fedprune.errors import FedpruneError
from fedprune.report import RoundReport, RunReport
from fedprune.task import load_task
from fedprune.torch import build_model, signature
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_client.outbox import Outbox
from fedprune_client.residual import ResidualFile
from fedprune_client.runner import Runner
from fedprune_client.transport import Link
from fedprune_server.serve import Server
from fedprune_server.workshop import Workshop

# A hang. Before pytest's own limit, which would not let the sockets be closed.
LONGEST_S = 200.0

HEAD = """
import torch
from torch import nn
from torch.utils.data import TensorDataset
"""
MODEL = """
def model():
    return nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 3))
"""
DATA = """
def _rows(seed, count):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 6, generator=g)
    return TensorDataset(x, (x[:, :3] + x[:, 3:]).argmax(1))

def train_data(shard):
    return _rows(100 + shard.index, 40 + 8 * shard.index)
"""
TEST_DATA = """
def test_data():
    return _rows(7, 64)
"""
LOSS = """
def loss(model, batch):
    x, y = batch
    return nn.functional.cross_entropy(model(x), y)

def metrics(model, batch):
    x, y = batch
    return {"accuracy": (model(x).argmax(1) == y).float().mean().item()}
"""


def task_file(
    folder: Path, *, model: str = MODEL, data: str = DATA, test_data: str = TEST_DATA, more: str = ""
) -> Path:
    """A small task, with other parts where a test needs them."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "task.py"
    path.write_text(f"{HEAD}\n{model}\n{data}\n{test_data}\n{LOSS}\n{more}")
    return path


def run_file(*overrides: str) -> RunConfig:
    """A run of three rounds, with these keys changed."""
    text = "[run]\nrounds = 3\n[clients]\nexpect = 3\n[training]\nbatch_size = 16\n"
    return RunConfig.loads(text, overrides=overrides)


@dataclass
class Site:
    """One client: its runner and what it said."""

    name: str
    runner: Runner
    said: list[str]
    task: asyncio.Task[None] | None = None

    async def end(self) -> None:
        """Wait until it has gone home; raises what it was refused for."""
        assert self.task is not None
        await self.task


MakeLink = Callable[[str, str, Callable[[str], None]], Link]


def make_link(server: str, identity: str, say: Callable[[str], None]) -> Link:
    return Link(server, identity, say=say)


class HeldLink(Link):
    """Submits what it made of the first `free` versions, and the rest when it may."""

    def __init__(self, server: str, identity: str, say: Callable[[str], None], may: asyncio.Event, free: int) -> None:
        super().__init__(server, identity, say=say)
        self._may, self._free = may, free

    async def submit(self, begin: pb.Begin, frame: bytes, *, chunk_bytes: int) -> pb.Receipt:
        if begin.version.model >= self._free:
            await self._may.wait()
        return await super().submit(begin, frame, chunk_bytes=chunk_bytes)


def holding(may: asyncio.Event, *, free: int = 0) -> MakeLink:
    """Links for clients that others must not be slower than: after `free` rounds they wait until they may go on."""
    return lambda server, identity, say: HeldLink(server, identity, say, may, free)


@dataclass
class Federation:
    """A coordinator that serves `configs`, and its clients."""

    folder: Path
    task: Path
    configs: Sequence[RunConfig]
    durable: bool = False
    certs: Path | None = None
    reports: list[RunReport] = field(default_factory=list)
    rounds: list[RoundReport] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)

    def __post_init__(self) -> None:
        torch.set_num_threads(1)
        # One thread trains for all clients: torch's optimizer hooks and generators belong to the whole process.
        self._worker = ThreadPoolExecutor(1, "all-clients")
        self.server = Server(
            configs=self.configs,
            workshop=Workshop.open(self.task, seed=self.configs[0].run.seed),
            out=self.folder / "runs",
            address="127.0.0.1:0",
            watch=lambda config, row: self.rounds.append(row),
            finished=self.reports.append,
            say=self.said.append,
            durable=self.durable,
            certs=self.certs,
        )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    @property
    def report(self) -> RunReport:
        return self.reports[-1]

    @asynccontextmanager
    async def serving(self, *, longest_s: float = LONGEST_S) -> AsyncIterator[asyncio.Task[bool]]:
        """The coordinator's task while it runs; it has ended, with its clients, when the block is left."""
        self.server.check()
        serving = asyncio.create_task(self.server.run())
        while not self.server.port and not serving.done():
            await asyncio.sleep(0.001)
        try:
            async with asyncio.timeout(longest_s):
                yield serving
        finally:
            for site in self.sites:
                if site.task is not None:
                    site.task.cancel()
            tasks = [serving, *(site.task for site in self.sites if site.task is not None)]
            serving.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._worker.shutdown()

    def site(self, name: str, *, task: Path | None = None, link: MakeLink = make_link, address: str = "") -> Site:
        """A client that has not started yet."""
        loaded = load_task(task or self.task)
        model = build_model(loaded)
        said: list[str] = []
        folder = self.folder / "clients" / name
        folder.mkdir(parents=True, exist_ok=True)
        runner = Runner(
            link=link(address or self.address, name, said.append),
            task=loaded,
            model=model,
            schema=signature(model),
            data=self.folder,
            outbox=Outbox(folder / "outbox"),
            residual=ResidualFile(folder=folder, say=said.append),
            say=said.append,
        )
        runner.worker = self._worker
        made = Site(name=name, runner=runner, said=said)
        self.sites.append(made)
        return made

    def start(self, name: str, *, task: Path | None = None, link: MakeLink = make_link, address: str = "") -> Site:
        """A client at work."""
        made = self.site(name, task=task, link=link, address=address)
        made.task = asyncio.create_task(made.runner.run())
        return made

    async def run(self, names: Sequence[str] = ("a", "b", "c"), *, link: MakeLink = make_link) -> bool:
        """The whole of it: True when every run finished. Clients join in the order of their names, so that each has
        the same index and shard in every test."""
        async with self.serving() as serving:
            for name in names:
                site = self.start(name, link=link)
                await until(lambda: any(s.startswith("joined") for s in site.said), serving)  # noqa: B023  # awaited here
            return await self.end(serving)

    async def cut_off(self, *, receipts: int) -> None:
        """Coordinator and clients are gone after so many receipts, in the middle of the run."""
        seen = list[str]()
        self.server.failpoint = seen.append
        async with self.serving() as serving:
            for name in "abc":
                site = self.start(name)
                await until(lambda: any(s.startswith("joined") for s in site.said), serving)  # noqa: B023  # awaited here
            await until(lambda: seen.count("receipt-sent") >= receipts, serving)
            self.server._suspended.set()
            await serving
        assert not self.reports

    @property
    def model(self) -> dict[str, bytes]:
        """The bits of what came out, by tensor."""
        arrays = load_file(self.folder / "runs" / "run" / "model.safetensors")
        return {name: array.tobytes() for name, array in arrays.items()}

    async def end(self, serving: asyncio.Task[bool]) -> bool:
        """Wait for the coordinator's end; a client that broke meanwhile is a failed test."""
        await until(serving.done, serving, *(site.task for site in self.sites if site.task is not None))
        return await serving


async def until(condition: Callable[[], bool], *watched: asyncio.Task[Any]) -> None:
    """Let the loop go on until something is so; what the watched tasks raise meanwhile is raised here."""
    while not condition():
        for task in watched:
            if task.done():
                task.result()
        if watched and all(task.done() for task in watched) and not condition():
            raise AssertionError("everything ended before it was so")
        await asyncio.sleep(0.002)


async def refused(site: Site) -> FedpruneError:
    """What a client was sent home for."""
    try:
        await site.end()
    except FedpruneError as error:
        return error
    raise AssertionError(f"{site.name} was not refused")
