"""A terminal in which a command begins at once: one warm process that is forked for each.

Every program imports torch for seconds; the pages show dozens of them. Here they are processes of their own all the same,
with their own folder, exit code and log. What a demo starts is forked as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import IO, Any, Self

from fedprune_lab import nursery, processes
from fedprune_lab.jobs import WARM_MODULES, Job
from fedprune_lab.ports import Ports

# What a command may take on a busy machine; a hung one is killed.
LONGEST_S = 200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A command that was begun; what it prints is in `log`."""

    pid: int
    line: str
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")


class Shell:
    """`with Shell() as shell`: commands are begun and waited for; those that are left over end with the block, or with
    this process. `ports` are for them to listen on."""

    def __enter__(self) -> Self:
        command = [sys.executable, __file__]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._warm = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True, text=True
        )
        assert self._told() == "warm"
        self.ports = Ports()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._warm.communicate()
        self.ports.close()

    def start(self, folder: Path, words: Sequence[str], log: Path) -> Started:
        """Begin `fedprune WORDS` in that folder."""
        pid = self._ask({"folder": str(folder), "words": list(words), "log": str(log)})
        return Started(pid=int(pid), line=" ".join(["fedprune", *words]), log=log)

    def ended(self, started: Started) -> int:
        """Its exit code, once it has ended."""
        return int(self._ask({"pid": started.pid}))

    def runs(self, started: Started) -> bool:
        """Whether it has not ended by now."""
        return self._ask({"pid": started.pid, "glance": True}) is None

    def _ask(self, what: dict[str, Any]) -> Any:
        assert self._warm.stdin is not None
        self._warm.stdin.write(json.dumps(what) + "\n")
        self._warm.stdin.flush()
        return self._told()

    def _told(self) -> Any:
        assert self._warm.stdout is not None
        assert select.select([self._warm.stdout], [], [], LONGEST_S)[0], "a command does not end"
        return json.loads(self._warm.stdout.readline())


class Forked:
    """In the place of the process that a demo starts its programs from: a fork of this one."""

    def __init__(self, command: Sequence[str], **_: Any) -> None:
        asked, told = os.pipe(), os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.close(asked[1])
                os.close(told[0])
                nursery.main(os.fdopen(asked[0]), os.fdopen(told[1], "w"))
            finally:
                os._exit(0)
        os.close(asked[0])
        os.close(told[1])
        self.stdin: IO[bytes] = os.fdopen(asked[1], "wb", 0)
        self.stdout: IO[bytes] = os.fdopen(told[0], "rb", 0)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; it ends when its programs have."""
        until = time.monotonic() + (LONGEST_S if timeout is None else timeout)
        while (code := ended(self.pid)) is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("the programs of a demo", until)
            select.select([], [], [], 0.01)
        return code

    def communicate(self) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self.stdin.close()
        self.stdout.close()


def ended(pid: int, options: int = os.WNOHANG) -> int | None:
    """The exit code of a child; None while it lives."""
    found, status = os.waitpid(pid, options)
    return os.waitstatus_to_exitcode(status) if found else None


def fewer_signals(data: Any) -> None:
    """A tenth of MNIST-1D: each process makes it anew, and all of it takes seconds."""
    args = data.get_dataset_args()
    args.num_samples //= 10
    data.get_dataset_args = lambda: args


def serve() -> None:
    """The warm process: an object a line, {"folder", "words", "log"} to begin a command, {"pid"} to wait for it, or to
    "glance" at it. What it has begun ends with it."""
    for module in WARM_MODULES:
        import_module(module)
    if find_spec("mnist1d"):
        fewer_signals(import_module("mnist1d.data"))
    places = SimpleNamespace(Popen=Forked, PIPE=subprocess.PIPE, TimeoutExpired=subprocess.TimeoutExpired)
    setattr(processes, "subprocess", places)  # noqa: B010 - a module's attribute, for the demo's programs
    print(json.dumps("warm"), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "pid" in asked:
            answer = ended(asked["pid"], os.WNOHANG if "glance" in asked else 0)
        else:
            os.chdir(asked["folder"])
            answer = nursery.fork(Job(name="", arguments=asked["words"], log=asked["log"]))
        print(json.dumps(answer), flush=True)
    os.killpg(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    serve()
