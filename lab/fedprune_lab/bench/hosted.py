"""A training between hosts of their own (`hosts.py`), where TCP runs from kernel to kernel: runs as given, the same clients.

Behind the relay only bytes are shaped, because TCP ends there; here slow start, dropped frames and acknowledgements are
part of what a round takes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedprune.config import RunConfig
from fedprune.errors import ConfigError, LocalError
from fedprune.report import RunReport
from fedprune_lab.bench.hosts import HEADER_BYTES, Hosts
from fedprune_lab.link import Link
from fedprune_lab.reading import REPORT, read

COORDINATOR = Link(rate_bit_per_s=1e9)
PORT = 7400


def trained(
    configs: Sequence[RunConfig], *, task: Path, link: Link, clients: int, folder: Path
) -> tuple[list[RunReport], int]:
    """The report of each run, clients behind such links, and the bytes that their frames carried both ways, headers taken off.
    Raises `LocalError` when a process fails, `ConfigError` for what such a link cannot do."""
    if link.jitter_s or link.reset_every_s or link.cut_every_s:
        raise ConfigError("between hosts a link has a rate and a delay", seen=link, next_step="Leave out --hosts")
    with Hosts(links=[COORDINATOR, *[link] * clients], folder=folder) as hosts:
        log = folder / "coordinator.log"
        coordinator = hosts.start(0, _serve(configs, task, folder), log)
        for number in range(1, clients + 1):
            hosts.start(number, _client(number, task, folder), folder / f"client-{number}.log")
        if coordinator.wait():
            raise LocalError(f"the coordinator failed:\n{log.read_text()[-2000:]}")
        hosts.still()
        frames = np.load(hosts.trace)
    reports = [read(folder / config.run.name / REPORT)[1][0] for config in configs]
    return reports, int(frames["bytes"].astype(np.int64).sum()) - HEADER_BYTES * len(frames)


def _serve(configs: Sequence[RunConfig], task: Path, folder: Path) -> list[str]:
    files = []
    for config in configs:
        files.append(folder / f"{config.run.name}.toml")
        files[-1].write_text(config.to_toml())
    command = [sys.executable, "-m", "fedprune_server", "serve", *map(str, files), "--task", str(task)]
    return [*command, "--out", str(folder), "--address", f"{Hosts.address(0)}:{PORT}", "--insecure"]


def _client(number: int, task: Path, folder: Path) -> list[str]:
    command = [sys.executable, "-m", "fedprune_client", "run", "--server", f"{Hosts.address(0)}:{PORT}", "--insecure"]
    own = ["--threads", "1", "--name", f"client-{number}", "--state", str(folder / f"client-{number}")]
    return [*command, "--task", str(task), *own]
