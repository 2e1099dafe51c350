"""A whole federation on this machine, for as long as its runs last: the demo and the benches stand on it.

Nothing is simulated. One coordinator and its clients are processes of their own, started with the same commands a
user types, and talk over TCP. All that happens here is starting them, watching the coordinator's `rounds.jsonl` grow,
reading the reports it wrote, and ending everything, whatever happens.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedprune.config import PageSection, RunConfig
from fedprune.errors import LocalError
from fedprune.report import RoundReport, RunReport
from fedprune_lab.jobs import Job
from fedprune_lab.link import Link
from fedprune_lab.ports import HOST, Ports, free_port
from fedprune_lab.processes import Processes
from fedprune_lab.reading import REPORT, read
from fedprune_lab.relay import Crossed, relay_in_background
from fedprune_lab.view import LiveView, View

COORDINATOR = "coordinator"
POLL_S = 0.1
# How things stand, while the coordinator lives.
STATUS = "now.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """Runs done one after another by the same clients; everything is kept below `out`, which must not exist.

    `relay` puts the counting relay between the two sides, `page` the live page at HOST:PORT; with a `link` each
    client's connection is such a line. `look` is called with the coordinator's process id at every glance at it, ten
    times a second. A `cold` coordinator is a process that nobody imported anything for.
    """

    configs: Sequence[RunConfig]
    task: Path
    clients: int
    out: Path
    relay: bool = False
    link: Link | None = None
    page: str | None = None
    cold: bool = False
    light: bool = False
    look: Callable[[int], None] | None = None

    def run(self, view: View) -> tuple[list[RunReport], Crossed | None]:
        """The report of each run, and what the relay counted. Raises `LocalError` when a process fails;
        `KeyboardInterrupt` passes, after everything has been ended."""
        self.out.mkdir(parents=True)
        crossed = None
        with contextlib.ExitStack() as stack:
            port = stack.enter_context(Ports()).take()
            stack.callback(view.close)
            # Being told to end is treated like Ctrl-C: end everything, say so, go.
            stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, signal.default_int_handler))
            relay = stack.enter_context(relay_in_background(HOST, port, self.link)) if self.relay else None
            how = "in two processes" if self.light else "each a process of its own"
            view.say(f"starting 1 coordinator and {self.clients} clients, {how}, on {HOST}:{port}")
            dialled = relay.port if relay else port
            server = self._coordinator(port, watched=isinstance(view, LiveView))
            clients = self._crowds(dialled) if self.light else self._clients(dialled)
            groups = (
                [Processes([server], warm=None), Processes(clients)] if self.cold else [Processes([server, *clients])]
            )
            stack.callback((self.out / STATUS).unlink, missing_ok=True)
            stack.enter_context(_ended(groups, view))
            self._attend(groups, view)
            crossed = relay.total if relay else None
        return [_report(self.out / config.run.name) for config in self.configs], crossed

    def _coordinator(self, port: int, *, watched: bool) -> Job:
        files = []
        for config in self.configs:
            file = self.out / f"{config.run.name}.toml"
            file.write_text(config.to_toml())
            files.append(str(file))
        places = ["--task", str(self.task), "--out", str(self.out), "--address", f"{HOST}:{port}"]
        places += ["--status", str(self.out / STATUS)] if watched else []
        places += ["--page-address", self.page] if self.page else []
        return Job(name=COORDINATOR, arguments=["server", *files, *places], log=str(self.out / f"{COORDINATOR}.log"))

    def _clients(self, port: int) -> list[Job]:
        state = str(self.out / "clients")
        common = ["client", "--server", f"{HOST}:{port}", "--task", str(self.task), "--threads", "1", "--state", state]
        names = [f"client-{number}" for number in range(1, self.clients + 1)]
        return [Job(name=n, arguments=[*common, "--name", n], log=str(self.out / f"{n}.log")) for n in names]

    def _crowds(self, port: int) -> list[Job]:
        half = self.clients // 2
        return [
            Job(
                name=name,
                arguments=[f"{HOST}:{port}", str(self.task), str(count), name],
                log=str(self.out / f"{name}.log"),
                module="fedprune_lab.light",
            )
            for name, count in (("left", half), ("right", self.clients - half))
        ]

    def _attend(self, groups: Sequence[Processes], view: View) -> None:
        """Show rounds until every process has ended well."""
        watch = _Watch(self.out, self.configs, view)
        while any(processes.running for processes in groups):
            for processes in groups:
                for ended in processes.wait(POLL_S / len(groups)):
                    if ended.code:
                        raise _failure(ended.name, ended.code, processes.last_words(ended.name))
            watch.look()
            pid = groups[0].pids.get(COORDINATOR)
            if self.look is not None and pid is not None:
                self.look(pid)


def page_address() -> str:
    """Where a live page can be served: at its usual address, or on a free port beside whoever has that."""
    usual = PageSection().address
    with contextlib.suppress(OSError), socket.create_server((HOST, int(usual.rpartition(":")[2]))):
        return usual
    return f"{HOST}:{free_port()}"


def free_folder(parent: Path, name: str) -> Path:
    """parent/name, or the first of name-2, name-3, ... that does not exist: no run overwrites another."""
    number, folder = 1, parent / name
    while folder.exists():
        number += 1
        folder = parent / f"{name}-{number}"
    return folder


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


class _Watch:
    """Tells the view of the rounds that the coordinator has written since the last look."""

    def __init__(self, out: Path, configs: Sequence[RunConfig], view: View) -> None:
        self._runs = [(c.run.name, c.run.rounds, Tail(out / c.run.name / "rounds.jsonl")) for c in configs]
        self._status = out / STATUS
        self._view = view
        self._begun = ""

    def look(self) -> None:
        """Show what is new, run by run in their order."""
        for name, rounds, tail in self._runs:
            rows = tail.rows()
            if rows and self._begun != name:
                self._begun = name
                self._view.begin(name, rounds)
            for row in rows:
                self._view.round(row)
        with contextlib.suppress(FileNotFoundError):
            self._view.clients(json.loads(self._status.read_bytes()))


@contextlib.contextmanager
def _ended(groups: Sequence[Processes], view: View) -> Iterator[None]:
    """The processes, none of which runs on after the block; says so when that took doing."""
    with contextlib.ExitStack() as stack:
        for processes in groups:
            stack.enter_context(processes)
        try:
            yield
        finally:
            view.close()
            stopped = sum(processes.stop() for processes in groups)
            if stopped:
                view.say(f"ended {stopped} processes; nothing is left running")


def _failure(name: str, code: int, last_words: str) -> LocalError:
    return LocalError(
        f"the {name} process failed with exit code {code}; its last words:\n{last_words}\n",
        next_step="Everything else was ended",
    )


def _report(folder: Path) -> RunReport:
    _, (run,) = read(folder / REPORT)
    return run
