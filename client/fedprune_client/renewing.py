"""A certificate lives for days, a client for months: it asks for the next one in good time, by itself.

What is under way goes on with the connection it has; what begins after a renewal uses the new certificate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from fedprune.errors import FedpruneError, StoreError
from fedprune.pki.certificates import request_pem
from fedprune.pki.credentials import Credentials
from fedprune_client.enrolling import received
from fedprune_client.transport import Link

# A machine may sleep meanwhile: look at the clock again at least so often.
LONGEST_SLEEP_S = 600.0
# After a renewal that failed.
PAUSE_S = 60.0


async def keep_current(link: Link, credentials: Credentials, folder: Path, say: Callable[[str], None]) -> None:
    """Renew the credentials whenever it is time, for as long as this runs."""
    while True:
        waits_s = (credentials.renewal - datetime.now(UTC)).total_seconds()
        if waits_s > 0:
            await asyncio.sleep(min(waits_s, LONGEST_SLEEP_S))
            continue
        try:
            credentials = await renewed(link, credentials)
        except FedpruneError as error:
            say(f"the certificate cannot be renewed now: {error}; again in {PAUSE_S:g} s")
            await asyncio.sleep(PAUSE_S)
            continue
        link.present(credentials)
        say(f"renewed the certificate, until {credentials.leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
        _keep(credentials, folder, say)


async def renewed(link: Link, credentials: Credentials) -> Credentials:
    """Credentials for the same key and for longer, and the roots as they are now."""
    reply = await link.renew(request_pem(credentials.key))
    return received(reply, credentials.key, party=link.server)


def _keep(credentials: Credentials, folder: Path, say: Callable[[str], None]) -> None:
    try:
        credentials.save(folder)
    except StoreError as error:
        # A secret that is mounted read-only: the certificate lives as long as this process.
        say(f"the renewed certificate is not kept: {error}")
