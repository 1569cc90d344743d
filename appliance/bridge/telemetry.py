"""What the bridge counts: plain numbers that status and metrics read, never the other way."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import trio

from appliance.reasons import Reason

LOG_EVERY: Final = 1.0
"""Seconds between two log lines of one kind: the counters have them all, the log a sample."""


@dataclass(slots=True)
class PunchCounts:
    """Punches since the start: one per relayed connection; `attempts` counts their rounds too."""

    attempts: int = 0
    succeeded: int = 0
    failed: Counter[Reason] = field(default_factory=Counter)
    outcomes: Counter[tuple[str, int, str]] = field(default_factory=Counter)
    """By (side, attempts, outcome) as go-libp2p's metric has them: initiator or receiver; 1 to 3;
    success, failed or no_suitable_address."""


@dataclass(slots=True)
class Telemetry:
    """Counters since the start of the process.

    `refusals` has `(subject, reason)` keys; subjects are a closed list: connection, stream,
    reservation, circuit, stop, kaspa, slot. `faults` are our own bugs by the protocol they hit.
    """

    refusals: Counter[tuple[str, Reason]] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    last_fault: dict[str, tuple[float, str]] = field(default_factory=dict)
    connections_closed: Counter[Reason] = field(default_factory=Counter)
    circuits_closed: Counter[str] = field(default_factory=Counter)
    """By reason code, or `closed` where both sides were done."""
    circuit_seconds: float = 0.0
    relayed_bytes: int = 0
    reservations_granted: int = 0
    reservations_renewed: int = 0
    reservations_ended: int = 0
    circuits_opened: int = 0
    kaspa_streams: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Opened, by (direction, path)."""
    kaspa_bytes: Counter[str] = field(default_factory=Counter)
    """By direction as the node sees it: in, out."""
    punch: PunchCounts = field(default_factory=PunchCounts)
    _logged: dict[object, float] = field(default_factory=dict)

    def worth_a_line(self, kind: object) -> bool:
        """Whether this kind of thing may be logged now: once in `LOG_EVERY`, strangers or not.

        `kind` is of a closed list, such as a subject with its reason.
        """
        now = trio.current_time()
        if now - self._logged.get(kind, -math.inf) < LOG_EVERY:
            return False
        self._logged[kind] = now
        return True
