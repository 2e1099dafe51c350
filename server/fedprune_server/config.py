"""What one coordinator process is started with: run files, flags, and the checks that need both.

A run file says how a run goes; where the process listens and where it writes is a matter of the place. This value
joins the two, so that everything behind it finds one answer and no flag.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedprune.addresses import is_loopback
from fedprune.config import PageSection, RunConfig
from fedprune.errors import ConfigError

CERTS = Path("certs")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """`runs` are done one after another; `address` is HOST:PORT, and `page` too, None for no page; results go to
    `out`/<name>/ for each run. With `certs` the connection is encrypted and both ends show certificates."""

    runs: tuple[RunConfig, ...]
    task: Path
    out: Path
    address: str
    insecure: bool
    certs: Path | None = None
    page: str | None = None
    page_token: Path | None = None

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
        if self.insecure and self.certs is not None:
            raise ConfigError("--insecure and --certs contradict each other", next_step="Leave --insecure out")
        if self.certs is not None and not self.certs.is_dir():
            raise ConfigError(
                "there are no certificates", seen=str(self.certs), next_step="Make them: fedprune certs init HOST"
            )
        if not self.insecure and self.certs is None and not is_loopback(self.address):
            raise ConfigError(
                "other machines could reach this address, and the connection is not encrypted",
                seen=self.address,
                expected="a folder of certificates, or a loopback address such as 127.0.0.1:7400",
                next_step="Make certificates: fedprune certs init HOST; or say --insecure if you trust the network",
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
        certs: Path | None = None,
        page: bool = False,
        page_address: str | None = None,
    ) -> ServerConfig:
        """Read the run files; flags that are not None win over what the first file says. For other machines to reach,
        the certificates in `CERTS` are used when they are there."""
        runs = tuple(RunConfig.load(file, overrides) for file in files)
        found = task or next((c.task.file for c in runs if c.task.file), None)
        if found is None:
            raise ConfigError("no task file is named", next_step="Give --task FILE, or [task] file in the run file")
        listening = address or next((c.network.address for c in runs), "")
        plaintext = insecure or any(c.network.insecure for c in runs)
        if certs is None and not plaintext and not is_loopback(listening) and CERTS.is_dir():
            certs = CERTS
        first = runs[0].page if runs else PageSection()
        return cls(
            runs=runs,
            task=found,
            out=out,
            address=listening,
            insecure=plaintext,
            certs=certs,
            page=page_address or (first.address if page or any(c.page.serve for c in runs) else None),
            page_token=first.token_file,
        )
