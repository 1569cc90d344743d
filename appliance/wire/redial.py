"""How long and how often one SYNC makes us dial.

A single shot only works while both dials are closer than the one-way delay if a router answers an
unexpected SYN with RST; dialling again with a *random* gap finds the overlap (48 of 48 measured,
where a fixed gap can lock out of phase).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

WINDOW: Final = 2.0
"""Seconds in which a refused dial is repeated: at 60 ms of gap some sixty tries."""
MAX_GAP: Final = 0.060
"""Seconds; the gap before each repetition is uniform in [0, this)."""
LISTENER_GRACE: Final = 1.5
"""Seconds that we keep waiting for the listener to get the connection after our dials ended:
the other side's window may lag by a round trip."""


@dataclass(frozen=True, slots=True)
class RedialWindow:
    """The window that opened at `opened` (monotonic seconds)."""

    opened: float

    @property
    def closes(self) -> float:
        return self.opened + WINDOW

    def gap(self, now: float, rng: random.Random) -> float | None:
        """Seconds to wait before the next dial, or None when the window is over."""
        gap = rng.uniform(0.0, MAX_GAP)
        return gap if now + gap < self.closes else None
