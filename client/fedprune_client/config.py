"""What one client process is started with, checked before anything is loaded or dialled."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from pathlib import Path

from fedprune.addresses import is_loopback
from fedprune.errors import ConfigError
from fedprune.pki.invitation import Invitation

PATIENCE_S = 3600.0
# Below the state folder: the credentials of who joined by an invitation, and where its coordinator is.
JOINED, COORDINATOR = "credentials", "coordinator"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """`server` is HOST:PORT. `name` is the identity under which the coordinator keeps this client's index;
    `data` is what the task file sees as `shard.path`; `state` is the folder of what must survive a restart; `threads`
    0 leaves torch's number of threads alone. With `credentials`, a folder of key and certificate, the connection is
    encrypted and the certificate says who this client is; it comes there by the invitation `join`, if any. Without,
    only a coordinator on this machine is dialled, unless `insecure` says that plaintext is fine. `patience_s` is how
    long a coordinator that cannot be joined is looked for, 0 for ever."""

    server: str
    task: Path
    name: str
    data: Path
    state: Path = Path(".fedprune")
    threads: int = 0
    credentials: Path | None = None
    join: Invitation | None = None
    insecure: bool = False
    patience_s: float = PATIENCE_S

    def __post_init__(self) -> None:
        host, _, port = self.server.rpartition(":")
        if not self.server:
            raise ConfigError(
                "no coordinator is named", expected="HOST:PORT", next_step="Give --server HOST:PORT, or --join LINE"
            )
        if not host or not port.isdecimal():
            raise ConfigError("the coordinator's address cannot be read", seen=self.server, expected="HOST:PORT")
        if self.credentials is None and not self.insecure and not is_loopback(self.server):
            raise ConfigError(
                "the connection to another machine would not be encrypted",
                seen=self.server,
                expected="an invitation, a folder of credentials, or a loopback address",
                next_step="Join with the line that `fedprune invite SITE` prints; or say --insecure",
            )
        if not self.task.is_file():
            raise ConfigError("there is no task file", seen=str(self.task), next_step="Check --task")
        if not NAME.fullmatch(self.name):
            raise ConfigError(
                "the name cannot be used, it also names a folder",
                seen=repr(self.name),
                expected="up to 128 letters, digits and . _ @ - with a letter or digit first",
            )
        if not self.data.exists():
            raise ConfigError("there is no data at --data", seen=str(self.data), next_step="Check the path")

    @classmethod
    def from_flags(
        cls,
        *,
        server: str | None,
        task: Path,
        name: str | None,
        data: Path | None,
        state: Path,
        threads: int,
        credentials: Path | None = None,
        join: str | None = None,
        insecure: bool = False,
        patience_s: float = PATIENCE_S,
    ) -> ClientConfig:
        """Fill in what was not given: this machine's name, the folder the task file lies in, and the coordinator that
        an invitation led to, now or before."""
        invitation = None if join is None else Invitation.parse(join)
        joined = state / JOINED
        reached = joined_coordinator(joined)
        if credentials is None and (invitation is not None or (reached and server in (None, reached))):
            credentials = joined
        return cls(
            server=server or (invitation.server if invitation is not None else reached),
            task=task,
            name=name or socket.gethostname(),
            data=data or task.resolve().parent,
            state=state,
            threads=threads,
            credentials=credentials,
            join=invitation,
            insecure=insecure,
            patience_s=patience_s,
        )


def joined_coordinator(folder: Path) -> str:
    """HOST:PORT of the coordinator that this folder of credentials was enrolled with; "" when there is none."""
    path = folder / COORDINATOR
    return path.read_text().strip() if path.is_file() else ""
