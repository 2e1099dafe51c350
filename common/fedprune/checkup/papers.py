"""What `doctor` can tell of a folder of credentials. A room of its own, because it loads cryptography: only where there is
a certificate to look at."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from fedprune.checkup.findings import Finding, good, trouble, warning
from fedprune.errors import FedpruneError
from fedprune.pki.certificates import hosts_of
from fedprune.pki.credentials import Credentials


def certificate(folder: Path, *, next_step: str) -> Finding:
    """Whether a folder of credentials is whole and valid by this machine's clock: for whom, and until when."""
    try:
        held = Credentials.load(folder)
        held.check_current(datetime.now(UTC), next_step=next_step)
        subject, hosts = held.subject, hosts_of(held.leaf)
    except FedpruneError as error:
        return trouble("certificate", error, next_step)
    reached = f", for {', '.join(hosts)}" if hosts else ""
    seen = f"{subject.role} {subject.name}{reached}, until {held.leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if held.due(datetime.now(UTC)):
        return warning(
            "certificate", f"{seen}: its renewal is due", f"It renews while its holder runs. Else: {next_step}"
        )
    return good("certificate", seen)
