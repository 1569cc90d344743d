"""Messages that wait to be sent to one peer, bounded in bytes."""

from __future__ import annotations

from collections import deque
from typing import Final

import trio

from appliance.errors import StreamReset
from appliance.units import KIB, MIB

MAX_BYTES: Final = MIB
"""What a peer may ask for faster than it reads. rusty-kaspa bounds the count (131,328 messages)."""
BULK_BYTES: Final = 128 * KIB
"""Bulk waits while more than this is queued, so that answers never wait long behind it."""


class Outbox:
    """Many tasks put, one takes."""

    def __init__(self) -> None:
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._closed = False
        self._filled = trio.lowlevel.ParkingLot()
        self._drained = trio.lowlevel.ParkingLot()

    def put_nowait(self, message: bytes) -> bool:
        """False if the peer is too slow: the message is not queued, and the peer should go."""
        if self._closed or self._bytes + len(message) > MAX_BYTES:
            return False
        self._queue.append(message)
        self._bytes += len(message)
        self._filled.unpark_all()
        return True

    async def put_bulk(self, message: bytes) -> None:
        """Waits for room. Raises StreamReset once closed."""
        await trio.lowlevel.checkpoint()
        while self._bytes > BULK_BYTES and not self._closed:
            await self._drained.park()
        if not self.put_nowait(message):
            raise StreamReset("the outbox is closed")

    async def take(self) -> bytes | None:
        """The next message; None once closed and empty."""
        await trio.lowlevel.checkpoint()
        while not self._queue:
            if self._closed:
                return None
            await self._filled.park()
        message = self._queue.popleft()
        self._bytes -= len(message)
        self._drained.unpark_all()
        return message

    def close(self) -> None:
        """Take no more; what is queued is still to be taken. Idempotent."""
        self._closed = True
        self._filled.unpark_all()
        self._drained.unpark_all()
