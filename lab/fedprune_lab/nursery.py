"""Starts several `fedprune` command lines from one warm process, and ends with them.

Five programs that each import torch keep two cores busy for ten seconds and more; importing once and forking takes
two. It is run as `python -m fedprune_lab.nursery`, in a session of its own. The first line on stdin says what to
start; the first line on stdout gives the process id of each job, the others tell of their ends. When stdin closes,
whoever asked for all this is gone, however it went: then the whole process group is killed.

Forking happens before any thread and any gRPC object exists. Where forking a warm process is not safe (macOS), the
programs are started cold instead.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from dataclasses import asdict
from importlib import import_module
from typing import Any, TextIO

from fedprune_lab.jobs import Ended, Job


def main(asked: TextIO, told: TextIO) -> None:
    """Start what is asked for and tell of its end, job by job."""
    if os.getpgrp() != os.getpid():
        os.setsid()  # the group that is killed in the end is ours alone
    plan = json.loads(asked.readline() or '{"warm": null, "jobs": []}')
    for module in plan["warm"] or ():
        import_module(module)
    start = _spawn if plan["warm"] is None else fork
    names = {start(job): job.name for job in (Job(**job) for job in plan["jobs"])}
    _tell(told, {name: pid for pid, name in names.items()})
    # Asked to end, the jobs end; we stay until the last of them has.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if names:
        threading.Thread(target=_die_with, args=(asked,), daemon=True).start()
    while names:
        pid, status = os.wait()
        _tell(told, asdict(Ended(name=names.pop(pid), code=os.waitstatus_to_exitcode(status))))


def _tell(told: TextIO, what: dict[str, Any]) -> None:
    print(json.dumps(what), file=told, flush=True)


def fork(job: Job) -> int:
    """Run a command line in a copy of this process; gives its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        log = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        quiet = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, quiet), (1, log), (2, log)):
            os.dup2(source, target)
        code = import_module(job.module).run(job.arguments)
    finally:
        # What would print the traceback lies beyond `os._exit`.
        if sys.exception() is not None:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        # Not sys.exit: what the parent has on its stack is none of ours.
        os._exit(code)


def _spawn(job: Job) -> int:
    with open(job.log, "ab") as log:
        command = [sys.executable, "-c", f"from {job.module} import run; raise SystemExit(run({job.arguments!r}))"]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log).pid


def _die_with(asked: TextIO) -> None:
    asked.read()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.stdin, sys.stdout)
