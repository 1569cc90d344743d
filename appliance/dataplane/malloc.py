"""The C library's allocator, told to keep what it will be asked for again at once.

Messages are allocated and freed by the hundred. glibc gives freed memory at the end of its heap
back to the kernel beyond 128 KiB, and faults every page of it in again for the next message: that
took 50 µs for 64 KiB whose copying takes 3 (`python -m tests.bench.malloc`).
"""

from __future__ import annotations

import ctypes
from typing import Final

from appliance.units import KIB, MIB

_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3
"""Parameters of mallopt(3)."""
KEPT: Final = 4 * MIB
"""Freed bytes at the end of the heap that stay ours."""


def keep_freed_memory() -> bool:
    """For the whole process; False, and nothing changed, where the C library cannot."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    settings = {_M_TRIM_THRESHOLD: KEPT, _M_TOP_PAD: 256 * KIB, _M_MMAP_THRESHOLD: MIB}
    return all(mallopt(parameter, value) for parameter, value in settings.items())
