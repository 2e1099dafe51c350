"""What TLS costs a run: how fast results and versions really move over the loopback, in plaintext and encrypted.

A coordinator as it is served and a client as it runs, with a model of four million parameters that is trained in no
time and travels raw. Up counts from the first byte of a result to its receipt: digests, checks and the synced disk
included. Down counts a version less the time the client takes to put it to use. One run of each kind is open, and
they take turns round by round: from one pull to the next the other run stands still, so that each pair of figures
is less than a second apart. `bench/tls.py` has the bare gRPC connection.

Example: python bench/transfer.py --rounds 40
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

import numpy as np
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
from fedprune_lab.ports import HOST, Ports
from fedprune_server.authority.office import Office

TASK = Path(__file__).parent / "tasks" / "embedding.py"
RUN = """
[run]
name = "transfer"
rounds = %d
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
MOST_EVALUATION_BYTES = 1 << 10


class Timed(Link):
    """A link that remembers MiB a second of what it moved, by direction, and pulls only when it has the turn."""

    def __init__(self, address: str, turn: asyncio.Lock, credentials: Credentials | None) -> None:
        super().__init__(address, "one", say=lambda text: None, credentials=credentials)
        self.up: list[float] = []
        self.down: list[float] = []
        self._turn, self._mine = turn, False

    def pass_on(self) -> None:
        """Let the other run have its round."""
        if self._mine:
            self._turn.release()
        self._mine = False

    async def submit(self, begin: pb.Begin, frame: bytes, *, chunk_bytes: int) -> pb.Receipt:
        began_s = time.perf_counter()
        receipt = await super().submit(begin, frame, chunk_bytes=chunk_bytes)
        if len(frame) > MOST_EVALUATION_BYTES:
            self.up.append(len(frame) / (time.perf_counter() - began_s) / 2**20)
        return receipt

    async def pull(self, run_id: str, replica: Replica, want: Version, apply: Apply) -> None:
        moved, applying_s = 0, 0.0
        self.pass_on()
        self._mine = await self._turn.acquire()

        async def counted(part: Any, data: memoryview) -> None:
            nonlocal moved, applying_s
            began_s = time.perf_counter()
            await apply(part, data)
            moved, applying_s = moved + len(data), applying_s + time.perf_counter() - began_s

        began_s = time.perf_counter()
        await super().pull(run_id, replica, want, counted)
        if moved:
            self.down.append(moved / (time.perf_counter() - began_s - applying_s) / 2**20)


async def moved(folder: Path, link: Timed) -> None:
    """One client's whole run."""
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
    try:
        await runner.run()
    finally:
        link.pass_on()


def serve(folder: Path, rounds: int, certs: Path | None, port: int) -> tuple[str, subprocess.Popen[str]]:
    """A coordinator in a process of its own, and its address."""
    folder.mkdir()
    (folder / "run.toml").write_text(RUN % rounds)
    address = f"{HOST}:{port}"
    command = ["serve", str(folder / "run.toml"), "--task", str(TASK), "--address", address]
    command += ["--out", str(folder / "runs")] + (["--certs", str(certs)] if certs is not None else [])
    with (folder / "log").open("w") as log:
        return address, subprocess.Popen(
            [sys.executable, "-m", "fedprune_server", *command], stdout=log, stderr=log, text=True
        )


async def both(folder: Path, rounds: int) -> dict[str, dict[str, list[float]]]:
    """MiB a second by kind and direction, a figure a round from the second on."""
    now, turn = datetime.now(UTC), asyncio.Lock()
    office = Office.found(folder / "certs", federation="bench", hosts=["127.0.0.1"], now=now)
    mine = office.provide(folder / "one", Subject(federation="bench", role=Role.TRAINER, name="one"), now)
    with Ports() as ports:
        plain, plain_server = serve(folder / PLAIN, rounds, None, ports.take())
        tls, tls_server = serve(folder / TLS, rounds, office.folder, ports.take())
        links = {PLAIN: Timed(plain, turn, None), TLS: Timed(tls, turn, mine)}
        try:
            await asyncio.gather(*(moved(folder / kind, link) for kind, link in links.items()))
        finally:
            for server in (plain_server, tls_server):
                server.terminate()
                server.wait()
    return {kind: {"up": link.up[1:], "down": link.down[1:]} for kind, link in links.items()}


def interval(costs: list[float]) -> tuple[float, float]:
    """Where the median of 95 of 100 resamples lies."""
    draws = np.random.default_rng(0).choice(costs, size=(2000, len(costs)))
    low, high = np.quantile(np.median(draws, axis=1), (0.025, 0.975))
    return float(low), float(high)


def main() -> None:
    """Take turns, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="rounds of each run, in turn")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        seen = asyncio.run(both(Path(name), rounds))
    print(f"{'':6}{PLAIN:>12}{TLS:>12}{'cost':>8}")
    for way in ("up", "down"):
        plain, tls = seen[PLAIN][way], seen[TLS][way]
        costs = [1 - t / p for p, t in zip(plain, tls, strict=False)]
        low, high = interval(costs)
        print(f"{way:6}{median(plain):>6.0f} MiB/s{median(tls):>6.0f} MiB/s{median(costs):>8.1%}", end="")
        print(f"   95 % of resampled medians: {low:.1%} to {high:.1%}, {len(costs)} pairs")
    print(f"kept in {keep('transfer', seen)}")


if __name__ == "__main__":
    main()
