"""Uploads between hosts whose lines are cut for 1 to 60 s, lose 1 % of their packets and are reset. Needs root.

Coordinator and clients are the product's own programs, each in a network namespace behind 10 Mbit/s and 20 ms
(`lab/fedprune_lab/bench/hosts.py`), with packet filters that drop and reset. Every upload must end in exactly one
receipt that counts. `large` is one upload of 11 million parameters over 10 Mbit/s, cut five times: what the coordinator
received beyond the update, by the kernel's count, may be five chunks.

Example: python bench/cuts.py many --seed 1
         python bench/cuts.py large
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from fedprune_lab.bench.hosts import Hosts
from fedprune_lab.benching import keep
from fedprune_lab.link import Link
from fedprune_server.store import SqliteStore, Work, verify

PORT = 7400
LINE = Link(rate_bit_per_s=10e6, delay_s=0.02)
WIDE = Link(rate_bit_per_s=1e9)
LOSS = 0.01
# A chunk of 512 KiB is some 360 packets: one in twenty chunks meets a reset.
RESET = 0.05 / 360
CHUNK_BYTES = 1 << 19
MOST_CHUNKS = 5.0
TASK = """
import torch
from torch import nn

def model():
    return nn.Sequential(nn.Linear({inputs}, {hidden}), nn.ReLU(), nn.Linear({hidden}, 10))

def train_data(shard):
    return list(range(20))

def loss(model, batch):
    return torch.tensor(0.5)

def train(model, data, ctx):
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.01 * torch.randn(p.shape))
    return 10
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run over lines that break: `cuts` of them, the next one up to `every_s` after a line has healed."""

    clients: int
    rounds: int
    inputs: int
    hidden: int
    cuts: int
    longest_s: float
    every_s: float
    loss: float = 0.0
    reset: float = 0.0
    limit_s: float = 440.0


MANY = Plan(clients=3, rounds=8, inputs=400, hidden=500, cuts=12, longest_s=60.0, every_s=6.0, loss=LOSS, reset=RESET)
LARGE = Plan(clients=1, rounds=1, inputs=2800, hidden=3900, cuts=5, longest_s=10.0, every_s=6.0)


def config(plan: Plan) -> str:
    """The run file; nobody is given up."""
    return (
        f'[run]\nname = "cuts"\nrounds = {plan.rounds}\nevaluate_every = 0\n[clients]\nexpect = {plan.clients}\n'
        f"min_clients = {plan.clients}\ngrace_s = 300.0\ndeadline_s = 400.0\n[training]\nheld_out = 0.0\n"
        "[pruning]\ndensity = 1.0\n"
    )


class Lines:
    """The packet filters of the clients' hosts."""

    def __init__(self, hosts: Hosts, log: Path) -> None:
        self._hosts, self._log = hosts, log

    def spoil(self, host: int, plan: Plan) -> None:
        """Lose packets both ways, and reset connections, at random."""
        chance = ("-m", "statistic", "--mode", "random", "--probability")
        for way in ("INPUT", "OUTPUT"):
            if plan.loss:
                self._filter(host, "-A", way, *chance, f"{plan.loss:.5f}", "-j", "DROP")
        if plan.reset:
            reset = (*chance, f"{plan.reset:.6f}", "-j", "REJECT", "--reject-with", "tcp-reset")
            self._filter(host, "-A", "OUTPUT", "-p", "tcp", *reset)

    def cut(self, host: int, seconds: float) -> None:
        """Nothing gets through, silently, for so long."""
        for verb in ("-I", "-D"):
            for way in ("INPUT", "OUTPUT"):
                self._filter(host, verb, way, "-j", "DROP")
            if verb == "-I":
                time.sleep(seconds)

    def _filter(self, host: int, *rule: str) -> None:
        code = self._hosts.start(host, ["iptables", "-w", *rule], self._log).wait()
        if code:
            raise SystemExit(f"iptables {' '.join(rule)} failed: {self._log.read_text()[-500:]}")


def play(plan: Plan, seed: int, folder: Path) -> tuple[int, list[float]]:
    """Play it: the coordinator's exit code, and the seconds of each cut."""
    (folder / "task.py").write_text(TASK.format(inputs=plan.inputs, hidden=plan.hidden))
    (folder / "run.toml").write_text(config(plan))
    task = ["--task", str(folder / "task.py")]
    server = ["serve", str(folder / "run.toml"), *task, "--out", str(folder), "--insecure"]
    server += ["--address", f"{Hosts.address(0)}:{PORT}"]
    chance, cuts = random.Random(seed), list[float]()
    with Hosts(links=[WIDE, *[LINE] * plan.clients], folder=folder) as hosts:
        lines = Lines(hosts, folder / "filters.log")
        coordinator = hosts.start(0, [sys.executable, "-m", "fedprune_server", *server], folder / "coordinator.log")
        for host in range(1, plan.clients + 1):
            own = ["run", "--server", f"{Hosts.address(0)}:{PORT}", "--insecure", "--threads", "1", *task]
            own += ["--name", f"client-{host}", "--state", str(folder / "state")]
            hosts.start(host, [sys.executable, "-m", "fedprune_client", *own], folder / f"client-{host}.log")
            lines.spoil(host, plan)
        began_s = time.monotonic()
        wait_for_upload(folder, coordinator)
        while coordinator.poll() is None and time.monotonic() - began_s < plan.limit_s:
            time.sleep(chance.uniform(0.3, 1.0) * plan.every_s)
            if len(cuts) < plan.cuts and coordinator.poll() is None:
                cuts.append(plan.longest_s ** chance.random())
                lines.cut(chance.randint(1, plan.clients), cuts[-1])
        code = coordinator.poll()
        return -1 if code is None else code, cuts


def wait_for_upload(folder: Path, coordinator: subprocess.Popen[bytes]) -> None:
    """Until the first bytes of a result have arrived."""
    staging = folder / "cuts" / "state" / "staging"
    while coordinator.poll() is None and not (staging.exists() and any(staging.iterdir())):
        time.sleep(0.05)


def judge(plan: Plan, folder: Path) -> tuple[int, list[str]]:
    """The receipts, and what is wrong."""
    run, receipts = folder / "cuts", 0
    problems = list(verify(run).problems)
    with closing(SqliteStore(run / "state")) as store:
        run_id = store.runs()[0].run_id
        for round_ in range(1, plan.rounds + 1):
            clients = sorted(receipt.client for receipt in store.receipts(run_id, round_, Work.TRAIN))
            receipts += len(clients)
            if clients != list(range(plan.clients)):
                problems.append(f"round {round_} counts clients {clients}")
    return receipts, problems


def extra_chunks(folder: Path) -> float:
    """What the coordinator's sockets received beyond the updates, in chunks."""
    rows = [json.loads(line) for line in (folder / "cuts" / "rounds.jsonl").read_text().splitlines()]
    ledger = [row["ledger"] for row in rows]
    update = sum(kinds[kind]["up"] for kinds in ledger for kind in kinds if kind in ("values", "positions", "manifest"))
    return float((sum(row["socket"]["up"] for row in rows) - update) / CHUNK_BYTES)


def main() -> int:
    """Print and keep what was seen; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["many", "large"])
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    plan = MANY if asked.what == "many" else LARGE
    with tempfile.TemporaryDirectory(prefix="fedprune-cuts-") as name:
        folder, began_s = Path(name), time.monotonic()
        code, cuts = play(plan, asked.seed, folder)
        took_s = time.monotonic() - began_s
        if code:
            print((folder / "coordinator.log").read_text()[-3000:])
            print(f"the coordinator ended with {code}")
            return 1
        receipts, problems = judge(plan, folder)
        extra = extra_chunks(folder)
    print(f"{len(cuts)} cuts of {min(cuts, default=0):.1f} to {max(cuts, default=0):.1f} s, {took_s:.0f} s in all")
    print(f"{receipts} receipts of {plan.clients * plan.rounds}; {extra:.2f} chunks of 512 KiB beyond the updates")
    if asked.what == "large" and extra > MOST_CHUNKS:
        problems.append("the cuts cost more than five chunks")
    result = {"receipts": receipts, "cuts_s": cuts, "extra_chunks": extra, "seconds": took_s}
    print(f"kept in {keep(f'cuts-{asked.what}', result)}")
    for problem in problems:
        print(problem)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
