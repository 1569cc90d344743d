"""What a connection holds for readers that did not come yet, and when it must not hold more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from appliance.dataplane.plane import Plane
from appliance.dataplane.seat import Seat

STALL_PATIENCE: Final = 5.0
"""Seconds that a connection whose streams hold too much unread is not read, before the streams
that hold most are reset. Below the ping deadlines of other implementations."""


class Unread:
    """The bytes of one connection, within the bounds of its `plane`."""

    __slots__ = ("_plane", "_room", "held")

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._room = Seat()
        self.held = 0

    def add(self, size: int) -> None:
        """Bytes came (positive), or were taken or dropped (negative)."""
        self.held += size
        self._plane.add_unread(size)
        if size < 0 and self._room.taken:
            self.resume()

    @property
    def too_much(self) -> bool:
        limits = self._plane.limits
        if self.held <= limits.assured:
            return False
        return self.held > limits.connection_unread or self._plane.unread > limits.total_unread

    async def wait(self, give_up_one: Callable[[], None]) -> None:
        """Until it is not too much; after a while by giving up streams, the fullest first.

        The peer waits meanwhile, like on a slow network. Only its own streams have to.
        """
        while self.too_much:
            self._plane.pause(self)
            with trio.move_on_after(STALL_PATIENCE) as patience:
                await self._room.wait()
            while patience.cancelled_caught and self.too_much:
                give_up_one()

    def resume(self) -> None:
        """Look again whether it is still too much."""
        if not self.too_much:
            self._room.wake()
        elif self._plane.unread > self._plane.limits.total_unread:
            self._plane.pause(self)

    def end(self) -> None:
        """The connection is over: nothing of it counts any more."""
        self._plane.add_unread(-self.held)
        self.held = 0
        self._plane.forget(self)
        self._room.wake()
