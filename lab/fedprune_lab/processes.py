"""The programs of a demo as one thing that can be started, watched and, above all, ended."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from fedprune_lab.jobs import WARM_MODULES, Ended, Job, encode

# A coordinator that is asked to end commits first.
GRACE_S = 3.0
# Elsewhere a process that has loaded torch may not survive being forked.
FORKS = sys.platform == "linux"
LOG_LINES = 12


class Processes:
    """`with Processes(jobs) as processes`: all of them run in a process group that does not outlive the block, nor
    this process, even if that is killed. `pids` has their process ids by name, once the first `wait` has heard."""

    def __init__(self, jobs: list[Job], *, warm: Sequence[str] | None = WARM_MODULES if FORKS else None) -> None:
        self._warm = warm
        self._jobs = {job.name: job for job in jobs}
        self._running = set(self._jobs)
        self.pids: dict[str, int] = {}
        self._rest = b""
        self._nursery: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "fedprune_lab.nursery"]
        environment = {"OMP_NUM_THREADS": "1"} | os.environ
        self._nursery = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
        )
        assert self._nursery.stdin is not None
        self._nursery.stdin.write(encode(list(self._jobs.values()), warm=self._warm).encode())
        self._nursery.stdin.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def running(self) -> frozenset[str]:
        """Names of the jobs that have not ended."""
        return frozenset(self._running)

    def wait(self, timeout_s: float) -> list[Ended]:
        """The jobs that ended since the last call, after waiting at most `timeout_s` for one."""
        assert self._nursery is not None
        assert self._nursery.stdout is not None
        pipe = self._nursery.stdout.fileno()
        if not select.select([pipe], [], [], timeout_s)[0]:
            return []
        data = os.read(pipe, 1 << 16)
        *lines, self._rest = (self._rest + data).split(b"\n")
        values = [json.loads(line) for line in lines]
        if values and not self.pids:
            self.pids = values.pop(0)
        ended = [Ended(**value) for value in values]
        if not data:
            ended = [Ended(name=name, code=self._nursery.wait() or 1) for name in sorted(self._running)]
        self._running -= {job.name for job in ended}
        return ended

    def last_words(self, name: str) -> str:
        """The end of a job's log."""
        path = Path(self._jobs[name].log)
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return "\n".join(lines[-LOG_LINES:])

    def stop(self) -> int:
        """End what still runs, gently, then by force; gives how many jobs that were."""
        nursery, self._nursery = self._nursery, None
        if nursery is None:
            return 0
        left = len(self._running)
        if left:
            _signal_group(nursery.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                nursery.wait(GRACE_S)
        _signal_group(nursery.pid, signal.SIGKILL)
        nursery.communicate()
        self._running.clear()
        return left


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # all gone
        os.killpg(group, number)
