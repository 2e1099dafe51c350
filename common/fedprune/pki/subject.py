"""What a certificate says about its holder: federation, role and name, in one URI among its alternative names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Self
from urllib.parse import urlsplit

from fedprune.errors import ConfigError

SCHEME = "fedprune"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Role(StrEnum):
    """What somebody may do here. The server's table says which calls that is."""

    TRAINER = "trainer"
    EVALUATOR = "evaluator"
    OBSERVER = "observer"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The holder of a certificate."""

    federation: str
    role: Role
    name: str

    def __post_init__(self) -> None:
        for what, text in (("federation", self.federation), ("name", self.name)):
            if not NAME.fullmatch(text):
                raise ConfigError(
                    f"the {what} cannot be used in a certificate",
                    seen=repr(text[:80]),
                    expected="up to 63 letters, digits and . _ - with a letter or digit first",
                )

    @property
    def uri(self) -> str:
        """fedprune://FEDERATION/ROLE/NAME."""
        return f"{SCHEME}://{self.federation}/{self.role.value}/{self.name}"

    @classmethod
    def of_uri(cls, uri: str) -> Self | None:
        """The holder that a URI names, or None when it is no such URI."""
        parts = urlsplit(uri)
        role, _, name = parts.path.removeprefix("/").partition("/")
        if parts.scheme != SCHEME or role not in {r.value for r in Role}:
            return None
        if not NAME.fullmatch(name) or not NAME.fullmatch(parts.netloc) or parts.query or parts.fragment:
            return None
        return cls(federation=parts.netloc, role=Role(role), name=name)
