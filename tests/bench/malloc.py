"""What a 64 KiB message costs to copy with eight of them alive, before and after our settings.

.venv/bin/python -m tests.bench.malloc
"""

from __future__ import annotations

import time

from appliance.dataplane.malloc import keep_freed_memory

_MESSAGE = memoryview(bytearray(65_536))
_ROUNDS = 20_000


def cost() -> float:
    """Microseconds of CPU for each message."""
    alive: list[bytes] = []
    started = time.process_time()
    for _ in range(_ROUNDS):
        alive.append(bytes(_MESSAGE))
        if len(alive) > 8:
            alive.clear()
    return (time.process_time() - started) / _ROUNDS * 1e6


if __name__ == "__main__":
    before = cost()
    known = keep_freed_memory()
    print(f"{before:.1f} µs, then {cost():.1f} µs" if known else f"{before:.1f} µs; no mallopt")
