"""A warm process that forks coordinators on demand: importing torch for each of a thousand restarts takes hours.

Run as `python -m fedprune_lab.faults.zygote`. One line of JSON on stdin starts one command line of `fedprune`; lines
on stdout tell its process id and, later, how it ended. When stdin closes, all of them are killed. Nothing here has a
thread or a gRPC object, so that forking is safe.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from importlib import import_module
from typing import Any

from fedprune_lab.jobs import Job
from fedprune_lab.nursery import fork

WARM_MODULES = ("fedprune_server.serve", "fedprune_client.start")


def main() -> None:
    """Serve until stdin closes."""
    os.setsid()
    for module in WARM_MODULES:
        import_module(module)
    wake, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    _tell({"ready": os.getpid()})
    line = b""
    while True:
        ready, _, _ = select.select([0, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
            _reap()
        if 0 in ready:
            data = os.read(0, 1 << 16)
            if not data:
                os.killpg(0, signal.SIGKILL)
            *lines, line = (line + data).split(b"\n")
            for asked in lines:
                _start(json.loads(asked))


def _start(asked: dict[str, Any]) -> None:
    environment = asked.pop("environment")
    os.environ.update(environment)
    pid = fork(Job(**asked))
    for name in environment:
        del os.environ[name]
    _tell({"started": pid, "name": asked["name"]})


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _tell({"ended": pid, "code": os.waitstatus_to_exitcode(status)})


def _tell(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
