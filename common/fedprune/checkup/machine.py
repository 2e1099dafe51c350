"""What `doctor` can tell of this machine alone, on either side: versions, disk, clock."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fedprune.checkup.findings import Finding, bad, good, warning

PACKAGES = ("fedprune", "grpcio", "protobuf", "numpy", "zstandard", "zlib-ng", "torch")
OLDEST_PYTHON = (3, 11)
LITTLE_BYTES = 1 << 30
SYNC_BYTES = 1 << 20
SLOW_SYNC_S = 0.5
# A machine that was off for long may wake up in the past of its own software.
NOT_BEFORE_S = 1_767_225_600  # 2026-01-01
TIME_ERROR = 5
# Room for the kernel's structure, with some to spare.
TIMEX_BYTES = 512


def versions() -> Finding:
    """Python and the packages that everything stands on."""
    found, missing = [f"Python {platform.python_version()}"], []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    if missing:
        return bad("versions", f"not installed: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    if sys.version_info < OLDEST_PYTHON:
        return bad("versions", found[0], "Install CPython 3.11 or newer")
    return good("versions", ", ".join(found))


def disk(folder: Path, *, what: str) -> Finding:
    """Room for `what` in the folder, or where it will be made; and whether a write reaches the disk in good time."""
    existing = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    try:
        took_s = _write_and_sync(existing)
        free = shutil.disk_usage(existing).free
    except OSError as error:
        step = f"Give another folder for {what}, or the right to write to it"
        return bad("disk", f"{folder}: {error.strerror}", step)
    seen = f"{folder}: {free / 1e9:.1f} GB free, 1 MiB is safe on it after {1000 * took_s:.0f} ms"
    if free < LITTLE_BYTES:
        return warning("disk", seen, f"Make room: {what} need about ten times the model's size")
    if took_s > SLOW_SYNC_S:
        return warning("disk", seen, "Use a local disk; network file systems are slow and lose locks")
    return good("disk", seen)


def clock() -> Finding:
    """Whether this machine's clock can be believed; certificates are judged by it, nothing else is."""
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if time.time() < NOT_BEFORE_S:
        return bad("clock", now, "Set the clock: certificates will not be valid yet")
    if sys.platform == "linux" and _is_adrift():
        return warning("clock", f"{now}; no time service keeps it", "Run an NTP client, such as chrony")
    return good("clock", now)


def _write_and_sync(folder: Path) -> float:
    began_s = time.monotonic()
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(SYNC_BYTES))
        file.flush()
        os.fsync(file.fileno())
    return time.monotonic() - began_s


def _is_adrift() -> bool:
    """What the kernel says of its own clock (adjtimex, which only asks when all is zero); its answer is the verdict."""
    verdict: int = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    return verdict == TIME_ERROR
