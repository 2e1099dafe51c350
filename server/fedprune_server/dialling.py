"""How the coordinator's own commands reach one that runs: in plaintext, or with a folder of credentials."""

from __future__ import annotations

from pathlib import Path

import grpc

from fedprune.pki.credentials import Credentials


def dialled(coordinator: str, credentials: Path | None) -> grpc.Channel:
    """A channel to HOST:PORT. Raises `ConfigError` when the credentials cannot be read."""
    if credentials is None:
        return grpc.insecure_channel(coordinator)
    mine = Credentials.load(credentials)
    return grpc.secure_channel(coordinator, grpc.ssl_channel_credentials(mine.trust_pem, mine.key_pem, mine.chain_pem))
