"""How many connections we begin: what the router upstream sets up for us without trouble.

Home routers lose connections of the whole household when somebody opens too many at once.
"""

from __future__ import annotations

from typing import Final

BURST_SECONDS: Final = 4.0
"""What may be begun at once after a pause, as time at the full rate."""
_ROUNDING: Final = 1e-6


class DialBudget:
    """Tokens that fill up with time, one for each connection begun; `per_second` of them.

    A punch cannot wait for its turn: it spends what it needs, and ordinary dials wait for longer.
    """

    def __init__(self, per_second: float, now: float) -> None:
        self._rate = per_second
        self._burst = max(1.0, per_second * BURST_SECONDS)
        self._level = self._burst
        self._at = now

    def wait(self, now: float) -> float:
        """Seconds until an ordinary dial may begin."""
        self._fill(now)
        lacking = 1.0 - self._level
        # A rounding error is no reason to wait: it would be one again and again.
        return lacking / self._rate if lacking > _ROUNDING else 0.0

    def spend(self, count: int, now: float) -> None:
        """`count` connections begin. The debt is never larger than one burst."""
        self._fill(now)
        self._level = max(-self._burst, self._level - count)

    def _fill(self, now: float) -> None:
        self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now
