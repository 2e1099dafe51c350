"""In processes of their own: the setting is for good, and the memory of this one is not ours to change."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from fedprune.allocator import return_freed_memory

# Frees 300 MB of blocks that lie between small ones which stay, after the allocator has learnt to keep such blocks.
PROGRAM = """
import re, sys
import numpy as np
from fedprune.allocator import return_freed_memory
if sys.argv[1] == "fixed":
    assert return_freed_memory()
def resident():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024
np.ones(2_000_000)[:] = 2.0
before, stays = resident(), []
for _ in range(3):
    blocks = [(np.ones(250_000), stays.append(bytearray(100_000))) for _ in range(150)]
    del blocks
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the thresholds are glibc's")
def test_freed_blocks_go_back_to_the_system() -> None:
    fixed = grown_mb("fixed")
    # 450 small blocks of 0.1 MB stay.
    assert fixed < 60
    assert grown_mb("as it is") > fixed + 50


def grown_mb(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_another_libc_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert return_freed_memory() is False
