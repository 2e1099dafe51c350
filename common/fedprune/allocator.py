"""Uses freed memory again, whichever thread freed it, so that a peak is what is needed and not what once was.

glibc gives each thread a heap of its own, and what one thread has freed no other one gets. A coordinator that decodes
updates of a large model in several threads grows with every round that way: eight clients of an 11-million-parameter
model took 620 MB and rising. Mapping each large block by itself holds that down, but a fresh block faults in page by
page, which took a coordinator a tenth of a second for each update. One heap for all threads, trimmed only far above
what a round takes, needs neither.
"""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
# From this size on a block is a mapping of its own, which goes when it is freed: the most that glibc takes.
MAPPED_FROM_BYTES = 32 << 20
TRIMMED_FROM_BYTES = 128 << 20
HEAPS = 1
_MADV_HUGEPAGE = 14
LARGE_PAGE_BYTES = 2 << 20


def share_freed_memory() -> bool:
    """Fix glibc's thresholds for this process; False where another allocator is at work. Call it before threads."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    mallopt.argtypes = [ctypes.c_int, ctypes.c_int]
    settings = ((_M_MMAP_THRESHOLD, MAPPED_FROM_BYTES), (_M_TRIM_THRESHOLD, TRIMMED_FROM_BYTES), (_M_ARENA_MAX, HEAPS))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)


def advise_large_pages(memory: memoryview) -> bool:
    """Ask the system to back `memory` (writable, not touched yet) by large pages; False where it cannot.

    A fault for every 4 KiB costs more than copying them: a frame of 40 MB is written in a fifth of the time.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    first = -(-start // LARGE_PAGE_BYTES) * LARGE_PAGE_BYTES
    size = (start + memory.nbytes) // LARGE_PAGE_BYTES * LARGE_PAGE_BYTES - first
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return size > 0 and madvise(first, size, _MADV_HUGEPAGE) == 0
