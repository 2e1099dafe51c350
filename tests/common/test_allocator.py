"""In processes of their own: the setting is for good, and the memory of this one is not ours to change."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from fedprune.allocator import share_freed_memory

# Six threads free 360 MB of blocks that lie between small ones which stay; then another thread takes as much.
PROGRAM = """
import re, sys, threading
import numpy as np
from fedprune.allocator import share_freed_memory
if sys.argv[1] == "fixed":
    assert share_freed_memory()
def resident():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024
np.ones(2_000_000)[:] = 2.0
before, stays, together = resident(), [], threading.Barrier(6)
def take():
    together.wait()
    blocks = [(np.ones(250_000), stays.append(bytearray(100_000))) for _ in range(30)]
    together.wait()
threads = [threading.Thread(target=take) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
blocks = [np.ones(250_000) for _ in range(180)]
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the thresholds are glibc's")
def test_what_one_thread_frees_another_one_gets() -> None:
    fixed = grown_mb("fixed")
    # 180 blocks of 2 MB and the small ones.
    assert fixed < 450
    assert grown_mb("as it is") > fixed + 100


def grown_mb(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_another_libc_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert share_freed_memory() is False
