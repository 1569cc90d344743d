"""Waiting longer after each failure, never in step with others."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

RELAY_FIRST: Final = 2.0
"""Seconds after a first failure at a relay; relay-capable kaspad starts at 10 s (anchors)."""
RELAY_CEILING: Final = 300.0
"""Seconds; relay-capable kaspad stops at 10 min, go-libp2p waits an hour: a home wants back."""
SLOT_FIRST: Final = 1.0
"""Seconds after a first failure to reach a private peer."""
SLOT_CEILING: Final = 60.0
"""Seconds; a peer that was restarted is found again within a minute."""

RESTART_FIRST: Final = 1.0
"""Seconds until a service of ours that failed is run again."""
RESTART_CEILING: Final = 60.0
"""Seconds; what fails every minute shows in `status` and costs nothing."""


@dataclass(slots=True)
class Backoff:
    """Doubling delays with jitter in [0.75, 1.25): `failed` gives the next, `succeeded` resets."""

    first: float
    ceiling: float
    failures: int = 0

    def failed(self, rng: random.Random) -> float:
        """Seconds to wait now."""
        delay = min(self.ceiling, self.first * float(2 ** min(self.failures, 32)))
        self.failures += 1
        return delay * rng.uniform(0.75, 1.25)

    def succeeded(self) -> None:
        self.failures = 0
