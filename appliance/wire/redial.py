"""How long and how often one SYNC makes us dial.

A single shot only works while both dials are closer than the one-way delay if a router answers an
unexpected SYN with RST; dialling again with a *random* gap finds the overlap (48 of 48 measured,
where a fixed gap can lock out of phase). The gap follows the round trip, which the refusal shows:
a wide one between near neighbours would miss again and again.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

WINDOW: Final = 2.0
"""Seconds in which a refused dial is repeated: some sixty tries far away, 250 in one town."""
MIN_SPREAD: Final = 0.015
MAX_SPREAD: Final = 0.060
"""Seconds; the gap before each repetition is uniform in [0, spread)."""
SPREAD: Final = 4.0
"""Round trips that the spread holds, between the two bounds."""
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

    def gap(self, now: float, refused_after: float, rng: random.Random) -> float | None:
        """Seconds to wait before the next dial, or None when the window is over.

        `refused_after` is how long the last dial took to be refused, in seconds.
        """
        spread = min(MAX_SPREAD, max(MIN_SPREAD, SPREAD * refused_after))
        gap = rng.uniform(0.0, spread)
        return gap if now + gap < self.closes else None
