"""Files of keys and certificates: written whole or not at all, and secret ones for their owner only."""

from __future__ import annotations

import os
from pathlib import Path

from fedprune.errors import ConfigError, StoreError

SECRET, PUBLIC = 0o600, 0o644


def write(path: Path, data: bytes, mode: int = PUBLIC) -> None:
    """Put `data` in place of whatever `path` holds, at once. Raises `StoreError`."""
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise StoreError("cannot write a key or certificate", party=str(path), seen=error.strerror) from error


def read(path: Path, *, next_step: str) -> bytes:
    """What the file holds. Raises `ConfigError` saying what to do when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError("cannot be read", party=str(path), seen=error.strerror, next_step=next_step) from error
