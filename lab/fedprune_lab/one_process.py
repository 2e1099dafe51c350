"""A whole federation in one process, for benches that ask about accuracy and bytes and not about time.

Everything is the real thing: the coordinator as it is served, clients as they run, gRPC, and bytes read from the
kernel's account of each client's own connection. What is saved is what such a bench would only wait for: processes,
imports, and syncs to disk. One thread trains for all clients, and they join in the order of their numbers, by which data
is given out: the same seed gives the same bits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch

from fedprune.config import RunConfig
from fedprune.errors import LocalError
from fedprune.report import RunReport
from fedprune.task import Task
from fedprune.torch import build_model, signature
from fedprune_client.outbox import Outbox
from fedprune_client.residual import ResidualFile
from fedprune_client.runner import Runner
from fedprune_client.transport import Link
from fedprune_lab.ports import HOST
from fedprune_server.serve import Server
from fedprune_server.workshop import Workshop

START_POLL_S = 0.001


def plain_link(server: str, name: str, say: Callable[[str], None]) -> Link:
    """The connection that every client has."""
    return Link(server, name, say=say)


@dataclass(slots=True, kw_only=True)
class OneProcess:
    """Runs done one after another by the same clients; everything is kept below `out`. `finished` is told of each run
    as it ends. `link` makes the clients' connections: a bench of attacks bends some of them."""

    configs: Sequence[RunConfig]
    task: Task
    clients: int
    out: Path
    finished: Callable[[RunReport], None] = lambda report: None
    link: Callable[[str, str, Callable[[str], None]], Link] = plain_link
    said: list[str] = field(default_factory=list)

    def run(self) -> list[RunReport]:
        """The report of each run. Raises what a client is refused for, and `LocalError` when a run does not finish."""
        torch.set_num_threads(1)
        with ThreadPoolExecutor(1, "all-clients") as worker:
            return asyncio.run(self._run(worker))

    async def _run(self, worker: ThreadPoolExecutor) -> list[RunReport]:
        reports: list[RunReport] = []

        def finished(report: RunReport) -> None:
            reports.append(report)
            self.finished(report)

        server = self._server(finished)
        server.check()
        async with asyncio.TaskGroup() as everyone:
            serving = everyone.create_task(server.run())
            while not server.port and not serving.done():
                await asyncio.sleep(START_POLL_S)
            for number in range(1, self.clients + 1):
                before = len(self.said)
                everyone.create_task(self._runner(f"{HOST}:{server.port}", f"client-{number}", worker).run())
                while not any(said.startswith("joined") for said in self.said[before:]) and not serving.done():
                    await asyncio.sleep(START_POLL_S)
        if not serving.result():
            raise LocalError("a run did not finish", seen=server.outcomes[-1].reason)
        return reports

    def _server(self, finished: Callable[[RunReport], None]) -> Server:
        return Server(
            configs=self.configs,
            workshop=Workshop.of(self.task, seed=self.configs[0].run.seed),
            out=self.out,
            address=f"{HOST}:0",
            watch=lambda config, row: None,
            finished=finished,
            say=self.said.append,
            durable=False,
        )

    def _runner(self, address: str, name: str, worker: ThreadPoolExecutor) -> Runner:
        model = build_model(self.task)
        folder = self.out / "clients" / name
        folder.mkdir(parents=True)
        return Runner(
            link=self.link(address, name, self.said.append),
            task=self.task,
            model=model,
            schema=signature(model),
            data=self.task.path.parent,
            outbox=Outbox(folder / "outbox"),
            residual=ResidualFile(folder=folder, say=self.said.append),
            say=self.said.append,
            worker=worker,
        )
