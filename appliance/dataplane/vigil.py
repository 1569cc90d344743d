"""Signs of life of a connection and the length of its round trip: times in, decisions out."""

from __future__ import annotations

import math
from enum import Enum
from typing import Final

PING_INTERVAL: Final = 30.0
"""Seconds of silence before we ask for a sign of life (go-yamux: 30 s)."""
PING_DEADLINE: Final = 15.0
"""Seconds until an unanswered ping ends the connection: an answer takes one round trip plus the
peer's backlog, far below this."""
RTT_EVERY: Final = 5.0
"""Seconds between two measurements of the round trip while a window is busy."""


class Look(Enum):
    """What a look at the connection found."""

    FINE = "fine"
    ASK = "ask"
    GONE = "gone"


class Vigil:
    """All times are seconds on the monotonic clock."""

    __slots__ = ("_asked", "_next", "_rtt_ping", "first_heard", "last_heard", "look_at", "rtt")

    def __init__(self) -> None:
        self.first_heard = self.last_heard = -math.inf
        self.look_at = -math.inf
        """When `look` is due."""
        self.rtt: float | None = None
        """The shortest round trip through the muxer that was seen, in seconds."""
        # When we asked for a sign of life that did not come yet.
        self._asked: float | None = None
        self._next = 1
        # The ping that measures the round trip, and when it was sent.
        self._rtt_ping: tuple[int, float] = (-1, -math.inf)

    def begin(self, now: float) -> None:
        self.look_at = now + PING_INTERVAL

    def heard(self, now: float) -> None:
        """Bytes came."""
        if self.first_heard < 0:
            self.first_heard = now
        self.last_heard = now

    def new_ping(self) -> int:
        """The value of the next ping."""
        self._next = (self._next + 1) & 0xFFFF_FFFF
        return self._next

    @property
    def measured(self) -> bool:
        """Whether the round trip was asked for at all."""
        return self._rtt_ping[0] >= 0

    def measure(self, now: float) -> int | None:
        """The value of a ping to send now for the round trip, if that was long ago."""
        if now - self._rtt_ping[1] < RTT_EVERY:
            return None
        value = self.new_ping()
        self._rtt_ping = value, now
        return value

    def answered(self, value: int) -> None:
        """A ping came back, with the bytes that were heard last."""
        if value == self._rtt_ping[0]:
            elapsed = self.last_heard - self._rtt_ping[1]
            self.rtt = min(elapsed, elapsed if self.rtt is None else self.rtt)

    def look(self, now: float) -> Look:
        """A peer that is silent is asked, one that stays silent is gone."""
        asked, self._asked = self._asked, None
        self.look_at = now + PING_INTERVAL
        if asked is not None:
            self.look_at = asked + PING_INTERVAL
            # Anything that came meanwhile is a sign of life as good as the answer.
            return Look.GONE if self.last_heard < asked else Look.FINE
        if now - self.last_heard < PING_INTERVAL:
            return Look.FINE
        self._asked, self.look_at = now, now + PING_DEADLINE
        return Look.ASK
