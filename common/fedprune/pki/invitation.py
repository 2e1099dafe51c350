"""An invitation as one line that can be read out, mailed or pasted: where, whom to trust, and the right to join once.

HOST:PORT/ENROL-PORT/CA-FINGERPRINT/TOKEN. Whoever has the line can join once until it expires, so it is as secret as a
password; whoever has it cannot be led to another coordinator, because the fingerprint is that of the federation's root.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from fedprune.errors import ConfigError

LINE = re.compile(r"(?P<server>[^/\s]+:\d{1,5})/(?P<port>\d{1,5})/(?P<ca>[0-9a-f]{64})/(?P<token>[A-Za-z0-9_-]{16,64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """`server` is HOST:PORT of the coordinator, `enrol_port` the port beside it, `ca` the root's SHA-256 in hex."""

    server: str
    enrol_port: int
    ca: str
    token: str

    def __str__(self) -> str:
        return f"{self.server}/{self.enrol_port}/{self.ca}/{self.token}"

    @property
    def host(self) -> str:
        """The coordinator's host, without brackets."""
        return self.server.rpartition(":")[0].strip("[]")

    @property
    def enrol_address(self) -> str:
        """HOST:PORT where to enrol."""
        return f"{self.server.rpartition(':')[0]}:{self.enrol_port}"

    @classmethod
    def parse(cls, line: str) -> Self:
        """Read a line. Raises `ConfigError` when it is none."""
        found = LINE.fullmatch(line.strip())
        if found is None or not 0 < int(found["port"]) < 1 << 16:
            raise ConfigError(
                "not an invitation",
                seen=repr(line[:24] + "..."),
                expected="the whole line that `fedprune invite SITE` printed, such as HOST:7400/7402/.../...",
            )
        return cls(server=found["server"], enrol_port=int(found["port"]), ca=found["ca"], token=found["token"])
