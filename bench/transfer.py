"""What TLS costs a run: how fast results and versions really move over the loopback, in plaintext and encrypted.

A coordinator as it is served and a client as it runs, with a model of four million parameters that is trained in no
time and travels raw. Up counts from the first byte of a result to its receipt: digests, checks and the synced disk
included. Down counts a version less the time the client takes to put it to use. Runs of both kinds take turns;
`bench/tls.py` has the bare gRPC connection.

Example: python bench/transfer.py --pairs 3
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import torch

from fedprune.pki.credentials import Credentials
from fedprune.pki.subject import Role, Subject
from fedprune.task import load_task
from fedprune.tensor import Version
from fedprune.torch import build_model, signature
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_client.download import Apply
from fedprune_client.outbox import Outbox
from fedprune_client.replica import Replica
from fedprune_client.residual import ResidualFile
from fedprune_client.runner import Runner
from fedprune_client.transport import Link
from fedprune_lab.benching import keep
from fedprune_lab.federation import free_port
from fedprune_server.authority.office import Office

TASK = Path(__file__).parent / "tasks" / "embedding.py"
RUN = """
[run]
name = "transfer"
rounds = 12
evaluate_every = 0
[clients]
expect = 1
[training]
steps = 1
batch_size = 8
held_out = 0.0
[compression]
up = "raw"
down = "raw"
[network]
enrol_port = 0
"""
PLAIN, TLS = "plain", "TLS"


class Timed(Link):
    """A link that remembers MiB a second of what it moved, by direction."""

    up: list[float]
    down: list[float]

    async def submit(self, begin: pb.Begin, frame: bytes, *, chunk_bytes: int) -> pb.Receipt:
        began_s = time.perf_counter()
        receipt = await super().submit(begin, frame, chunk_bytes=chunk_bytes)
        self.up.append(len(frame) / (time.perf_counter() - began_s) / 2**20)
        return receipt

    async def pull(self, run_id: str, replica: Replica, want: Version, apply: Apply) -> None:
        moved, applying_s = 0, 0.0

        async def counted(part: Any, data: memoryview) -> None:
            nonlocal moved, applying_s
            began_s = time.perf_counter()
            await apply(part, data)
            moved, applying_s = moved + len(data), applying_s + time.perf_counter() - began_s

        began_s = time.perf_counter()
        await super().pull(run_id, replica, want, counted)
        if moved:
            self.down.append(moved / (time.perf_counter() - began_s - applying_s) / 2**20)


async def moved(address: str, folder: Path, credentials: Credentials | None) -> tuple[float, float]:
    """MiB a second up and down: medians of a run's rounds from the second on."""
    link = Timed(address, "one", say=lambda text: None, credentials=credentials)
    link.up, link.down = [], []
    task, state = load_task(TASK), folder / "client"
    state.mkdir()
    model = build_model(task)
    runner = Runner(
        link=link,
        task=task,
        model=model,
        schema=signature(model),
        data=folder,
        outbox=Outbox(state / "outbox"),
        residual=ResidualFile(folder=state, say=print),
        say=lambda text: None,
    )
    await runner.run()
    return median(link.up[1:]), median(link.down[1:])


def one_run(folder: Path, certs: Path | None, credentials: Credentials | None) -> tuple[float, float]:
    """A coordinator, its one client, and how fast things moved."""
    folder.mkdir()
    (folder / "run.toml").write_text(RUN)
    address = f"127.0.0.1:{free_port()}"
    serve = [
        "serve",
        str(folder / "run.toml"),
        "--task",
        str(TASK),
        "--address",
        address,
        "--out",
        str(folder / "runs"),
    ]
    serve += ["--certs", str(certs)] if certs is not None else []
    with (folder / "log").open("w") as log:
        coordinator = subprocess.Popen([sys.executable, "-m", "fedprune_server", *serve], stdout=log, stderr=log)
    try:
        return asyncio.run(moved(address, folder, credentials))
    finally:
        coordinator.terminate()
        coordinator.wait()


def main() -> None:
    """Take turns, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3, help="runs of each kind, in turn")
    pairs = parser.parse_args().pairs
    torch.set_num_threads(1)
    seen: dict[str, list[tuple[float, float]]] = {PLAIN: [], TLS: []}
    with tempfile.TemporaryDirectory() as name:
        folder, now = Path(name), datetime.now(UTC)
        office = Office.found(folder / "certs", federation="bench", hosts=["127.0.0.1"], now=now)
        mine = office.provide(folder / "one", Subject(federation="bench", role=Role.TRAINER, name="one"), now)
        for pair in range(pairs):
            seen[PLAIN].append(one_run(folder / f"plain-{pair}", None, None))
            seen[TLS].append(one_run(folder / f"tls-{pair}", office.folder, mine))
    print(f"{'':6}{PLAIN:>12}{TLS:>12}{'cost':>8}")
    for index, way in enumerate(("up", "down")):
        plain, tls = (median(row[index] for row in seen[kind]) for kind in (PLAIN, TLS))
        costs = [1 - t[index] / p[index] for p, t in zip(seen[PLAIN], seen[TLS], strict=True)]
        each = ", ".join(f"{cost:.1%}" for cost in costs)
        print(f"{way:6}{plain:>6.0f} MiB/s{tls:>6.0f} MiB/s{median(costs):>8.1%}   pairs: {each}")
    print(f"kept in {keep('transfer', seen)}")


if __name__ == "__main__":
    main()
