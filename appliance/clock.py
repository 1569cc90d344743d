"""Time as an argument: rooms without I/O get `now`; shells ask a `Clock` for it."""

from __future__ import annotations

import time
from typing import Protocol

import trio


class Clock(Protocol):
    """Where a shell reads the time. Tests run under trio's virtual clock and need no other one."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back; only differences mean anything."""
        ...

    def wall(self) -> float:
        """Unix time in seconds, for what is shown to people or sent to peers."""
        ...


class TrioClock:
    """The run's own clock: `trio.current_time()`, hence virtual under `MockClock`."""

    def monotonic(self) -> float:
        return trio.current_time()

    def wall(self) -> float:
        return time.time()
