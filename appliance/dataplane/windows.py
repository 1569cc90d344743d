"""Receive windows: how far a peer may be ahead of its reader, and how far that may grow.

A window starts at 256 KiB, which the yamux specification fixes for both ends. Once half of it was
read it is widened if that took less than four round trips, and so on: the window was then what held
the peer back. What all windows have grown by is bounded.
"""

from __future__ import annotations

from typing import Final

from appliance.units import KIB, MIB

INITIAL_WINDOW: Final = 256 * KIB
"""Both directions of every stream start with it (yamux spec)."""
READ_WINDOW: Final = MIB
"""What a window grows to first: 100 Mbit/s at 80 ms, and what a relay needs to keep
two peers busy on one machine."""
MAX_WINDOW: Final = 4 * MIB
"""300 Mbit/s at 100 ms (go-yamux: 16 MiB, bounded by its resource manager)."""
CONNECTION_GROWTH: Final = 4 * MIB
"""What the windows of one connection may have grown by, unless the plan says otherwise."""
_LONG_PATH: Final = 0.005
"""Seconds of a round trip from which a window begins with `READ_WINDOW`."""
_ROUND_TRIPS: Final = 4.0
"""Half a window in less than this many round trips makes it grow (go-yamux: 4)."""


class WindowBudget:
    """What the windows of one connection may grow by, within what all connections may."""

    __slots__ = ("_connection", "_left", "_shared", "per_stream")

    def __init__(
        self,
        connection: int = CONNECTION_GROWTH,
        *,
        per_stream: int = MAX_WINDOW,
        shared: WindowBudget | None = None,
    ) -> None:
        self._connection = self._left = connection
        self._shared = shared
        self.per_stream = per_stream

    @property
    def left(self) -> int:
        """Bytes that windows may still grow by."""
        return self._left if self._shared is None else min(self._left, self._shared.left)

    def take(self, size: int, grown: int, streams: int) -> int:
        """Up to `size` bytes for a window that has `grown`; how many there were.

        No window gets more than its share among the `streams` of the connection: a wider one
        would also get more of the bandwidth.
        """
        size = max(0, min(size, self.left, self._connection // max(1, streams) - grown))
        self.shift(-size)
        return size

    def give_back(self, window: ReceiveWindow) -> None:
        """`window` is gone; nothing if it never grew."""
        self.shift(window.grown)
        window.grown = 0

    def shift(self, size: int) -> None:
        """Change what is left, here and in what is shared."""
        self._left += size
        if self._shared is not None:
            self._shared.shift(size)


class ReceiveWindow:
    """What the peer may send on one stream."""

    __slots__ = ("_consumed", "_granted_at", "_left", "grown")

    def __init__(self) -> None:
        self._left = INITIAL_WINDOW
        self._consumed = 0
        self._granted_at = 0.0
        self.grown = 0

    @property
    def size(self) -> int:
        """Bytes that the peer may be ahead of the reader."""
        return INITIAL_WINDOW + self.grown

    def received(self, size: int) -> bool:
        """Whether the peer was allowed to send `size` bytes more."""
        self._left -= size
        return self._left >= 0

    def consumed(
        self, size: int, budget: WindowBudget, streams: int, now: float, rtt: float | None
    ) -> int:
        """The reader took `size` bytes: bytes to grant to the peer now, 0 for later."""
        if not self._granted_at:
            self._granted_at = now
        self._consumed += size
        if self._consumed < self.size // 2:
            return 0
        if rtt is None:
            self._grow_to(READ_WINDOW if not self.grown else self.size, budget, streams)
        elif now - self._granted_at <= _ROUND_TRIPS * rtt:
            # On a short path each doubling is a matter of milliseconds, and what is more than
            # enough only queues in front of a slow reader.
            enough = READ_WINDOW if rtt > _LONG_PATH else 0
            self._grow_to(max(2 * self.size, enough), budget, streams)
        granted, self._consumed = self._consumed, 0
        self._left += granted
        self._granted_at = now
        return granted

    def _grow_to(self, size: int, budget: WindowBudget, streams: int) -> None:
        size = min(size, budget.per_stream)
        growth = budget.take(size - self.size, self.grown, streams)
        self.grown += growth
        self._consumed += growth
