"""`fedprune demo`: a whole federation on this machine, twice: dense, then pruned to a tenth.

Nothing is simulated. One coordinator and four clients are processes of their own, started with the same commands a
user types, and talk over TCP. The demo only starts them, watches the coordinator's `rounds.jsonl` grow, and compares
the two reports that the coordinator wrote. Whatever happens, it ends everything it started.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from fedprune.config import ClientsSection, PruningSection, RunConfig, RunSection, TrainingSection
from fedprune.errors import LocalError
from fedprune.report import RoundReport, RunReport, document
from fedprune_lab.comparison import compare
from fedprune_lab.nursery import Job
from fedprune_lab.processes import Processes
from fedprune_lab.relay import relay_in_background
from fedprune_lab.report import REPORT, notes, print_sums, read
from fedprune_lab.view import View, open_view

HOST = "127.0.0.1"
TASK = Path(__file__).with_name("digits.py")
CLIENTS = 4
ROUNDS = 40
DENSITY = 0.1
SEED = 1
EPOCHS = 2
LEARNING_RATE = 0.1
EVERY = 3
POLL_S = 0.1
COORDINATOR = "coordinator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the demo does; the defaults are what `make demo` shows."""

    out: Path
    rounds: int = ROUNDS
    clients: int = CLIENTS
    density: float = DENSITY
    seed: int = SEED
    task: Path = TASK
    relay: bool = False

    def configs(self) -> tuple[RunConfig, RunConfig]:
        """The dense run and the pruned run: alike in everything else."""
        return self._config("dense", 1.0), self._config("pruned", self.density)

    def _config(self, name: str, density: float) -> RunConfig:
        return RunConfig(
            run=RunSection(name=name, rounds=self.rounds, seed=self.seed),
            clients=ClientsSection(expect=self.clients, min_clients=self.clients),
            training=TrainingSection(epochs=EPOCHS, learning_rate=LEARNING_RATE, held_out=0.0),
            pruning=PruningSection(density=density, every=EVERY),
        )


def run_demo(plan: Plan, console: Console) -> dict[str, Any]:
    """Run the whole demo and give what its report.json holds. Raises `LocalError` when a program of it fails;
    `KeyboardInterrupt` passes, after everything has been ended."""
    plan.out.mkdir(parents=True)
    configs = plan.configs()
    port = free_port()
    view = open_view(console)
    watch = _Watch(plan.out, configs, view)
    with contextlib.ExitStack() as stack:
        stack.callback(view.close)
        # Being told to end is treated like Ctrl-C: end everything, say so, go.
        stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, signal.default_int_handler))
        relay = stack.enter_context(relay_in_background(HOST, port)) if plan.relay else None
        view.say(f"starting 1 coordinator and {plan.clients} clients, each a process of its own, on {HOST}:{port}")
        processes = stack.enter_context(
            _ended(Processes(_jobs(plan, configs, port, relay.port if relay else port)), view)
        )
        _attend(processes, watch)
    runs = [_report(plan.out / config.run.name) for config in configs]
    more: dict[str, Any] = {"comparison": compare(*runs).to_dict()}
    if relay is not None:
        more["relay"] = {"up": relay.total.up, "down": relay.total.down}
    whole = document(runs, **more)
    (plan.out / REPORT).write_text(json.dumps(whole, indent=1) + "\n")
    return whole


def print_outcome(plan: Plan, console: Console) -> None:
    """Dense beside pruned, and where everything lies."""
    _, runs = read(plan.out / REPORT)
    print_sums(runs, console)
    # Both runs tend to have the same notes.
    for note in dict.fromkeys(note for run in runs for note in notes(run)):
        console.print(f"  {note}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"all of it, round by round: fedprune report {plan.out}", highlight=False, soft_wrap=True)


def free_port() -> int:
    """A port of the loopback that nobody listens on right now."""
    with socket.create_server((HOST, 0)) as server:
        port: int = server.getsockname()[1]
        return port


def free_folder(parent: Path, name: str) -> Path:
    """parent/name, or the first of name-2, name-3, ... that does not exist: no demo overwrites another."""
    number, folder = 1, parent / name
    while folder.exists():
        number += 1
        folder = parent / f"{name}-{number}"
    return folder


def _jobs(plan: Plan, configs: Sequence[RunConfig], port: int, dialled_port: int) -> list[Job]:
    files = []
    for config in configs:
        file = plan.out / f"{config.run.name}.toml"
        file.write_text(config.to_toml())
        files.append(str(file))
    task = ["--task", str(plan.task)]
    serve = ["server", *files, *task, "--out", str(plan.out), "--address", f"{HOST}:{port}"]
    jobs = [Job(name=COORDINATOR, arguments=serve, log=str(plan.out / f"{COORDINATOR}.log"))]
    for number in range(1, plan.clients + 1):
        name = f"client-{number}"
        join = ["client", "--server", f"{HOST}:{dialled_port}", "--name", name, *task, "--threads", "1"]
        join += ["--state", str(plan.out / "clients")]
        jobs.append(Job(name=name, arguments=join, log=str(plan.out / f"{name}.log")))
    return jobs


def _attend(processes: Processes, watch: _Watch) -> None:
    """Show rounds until every program has ended well."""
    while processes.running:
        for ended in processes.wait(POLL_S):
            if ended.code:
                raise LocalError(
                    f"the demo's {ended.name} failed with exit code {ended.code}; its last words:\n"
                    f"{processes.last_words(ended.name)}\n",
                    next_step="Everything else was ended",
                )
        watch.look()


@contextlib.contextmanager
def _ended(processes: Processes, view: View) -> Iterator[Processes]:
    """The processes, none of which runs on after the block; says so when that took doing."""
    with processes:
        try:
            yield processes
        finally:
            view.close()
            stopped = processes.stop()
            if stopped:
                view.say(f"ended {stopped} processes; nothing is left running")


def _report(folder: Path) -> RunReport:
    _, (run,) = read(folder / REPORT)
    return run


class _Watch:
    """Tells the view of the rounds that the coordinator has written since the last look."""

    def __init__(self, out: Path, configs: Sequence[RunConfig], view: View) -> None:
        self._waiting = [(c.run.name, c.run.rounds, Tail(out / c.run.name / "rounds.jsonl")) for c in configs]
        self._view = view
        self._begun = ""

    def look(self) -> None:
        """Show what is new, run by run in their order."""
        for name, rounds, tail in self._waiting:
            rows = tail.rows()
            if rows and self._begun != name:
                self._begun = name
                self._view.begin(name, rounds)
            for row in rows:
                self._view.round(row)


class Tail:
    """The rounds that were added to a rounds.jsonl since it was last asked; a line still being written waits."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def rows(self) -> list[RoundReport]:
        """New rounds, in order; none while the file does not exist."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [RoundReport.from_json(line) for line in whole.decode().splitlines()]
