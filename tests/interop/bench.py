"""What the Python programs of the benchmarks share: their terms, and how `body` is timed.

Imports neither library nor appliance: what a program weighs is measured too.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import trio

READY: Final = b"+"
WRITE_SIZE: Final = 64 * 1024
SMALL_SIZE: Final = 64
EVERYBODY: Final = 1 << 20
"""More than any benchmark has of anything."""

Reply = dict[str, Any]
Close = Callable[[], Awaitable[object]]


@dataclass
class Flood:
    """A set of streams that are being written to."""

    stop: bool = False
    sent: int = 0
    confirmed: int = 0
    running: int = 0
    faults: set[str] = field(default_factory=set)
    over: trio.Event = field(default_factory=trio.Event)

    async def end(self) -> Reply:
        """Stop writing; what was sent and confirmed. Raises ConnectionError."""
        self.stop = True
        await self.over.wait()
        if self.faults:
            raise ConnectionError("; ".join(sorted(self.faults)))
        return {"sent": self.sent, "confirmed": self.confirmed}


async def timed(count: int, seconds: float, body: Callable[[], Awaitable[Close | None]]) -> Reply:
    """Run `body` so many times, or for so long; microseconds of each.

    What it returns is called afterwards, beside the clock.
    """
    taken: list[int] = []
    until = time.perf_counter() + seconds
    while len(taken) < count and time.perf_counter() < until:
        began = time.perf_counter()
        close = await body()
        taken.append(round((time.perf_counter() - began) * 1e6))
        if close is not None:
            await close()
    return {"us": taken}
