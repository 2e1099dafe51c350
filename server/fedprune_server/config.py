"""What one coordinator process is started with: run files, flags, and the checks that need both.

A run file says how a run goes; where the process listens and where it writes is a matter of the place. This value
joins the two, so that everything behind it finds one answer and no flag.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedprune.config import RunConfig
from fedprune.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """`runs` are done one after another; `address` is HOST:PORT; results go to `out`/<name>/ for each run."""

    runs: tuple[RunConfig, ...]
    task: Path
    out: Path
    address: str
    insecure: bool

    def __post_init__(self) -> None:
        names = [config.run.name for config in self.runs]
        if not names:
            raise ConfigError("a coordinator needs a run file", next_step="Example: fedprune server run.toml")
        if len(set(names)) != len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise ConfigError(
                f"two of the run files are called {twice!r} and would share one folder",
                next_step="Give each its own [run] name",
            )
        if not self.task.is_file():
            raise ConfigError("there is no task file", seen=str(self.task), next_step="Check [task] file or --task")
        if not self.insecure and not is_loopback(self.address):
            raise ConfigError(
                "other machines could reach this address, and the connection is not encrypted",
                seen=self.address,
                expected="a loopback address such as 127.0.0.1:7400",
                next_step="Say --insecure if you trust the network",
            )

    @classmethod
    def from_files(
        cls,
        files: Sequence[Path],
        *,
        overrides: Sequence[str],
        task: Path | None,
        out: Path,
        address: str | None,
        insecure: bool,
    ) -> ServerConfig:
        """Read the run files; flags that are not None win over what the first file says."""
        runs = tuple(RunConfig.load(file, overrides) for file in files)
        found = task or next((c.task.file for c in runs if c.task.file), None)
        if found is None:
            raise ConfigError("no task file is named", next_step="Give --task FILE, or [task] file in the run file")
        return cls(
            runs=runs,
            task=found,
            out=out,
            address=address or next((c.network.address for c in runs), ""),
            insecure=insecure or any(c.network.insecure for c in runs),
        )


def is_loopback(address: str) -> bool:
    """True when HOST:PORT can be reached from this machine only."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
