"""A carrier in memory: two `Carrier`s back to back, with everything that a network can do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from itertools import cycle

import trio

from appliance.errors import StreamReset


class _Half:
    """One direction: a bounded buffer with an end of file and a reset."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.buffer = bytearray()
        self.eof = False
        self.reset = False
        self.black_hole = False
        self.changed = trio.lowlevel.ParkingLot()

    def touch(self) -> None:
        self.changed.unpark_all()


class MemoryCarrier:
    """One end. `segment` gives the size of the next read; capacities are in bytes."""

    def __init__(self, incoming: _Half, outgoing: _Half, segment: Callable[[], int]) -> None:
        self._in = incoming
        self._out = outgoing
        self._segment = segment
        self._unsent = b""
        self.was_reset = False

    @property
    def unread(self) -> int:
        """Bytes that the other end sent and this one did not take yet."""
        return len(self._in.buffer)

    @property
    def unsent(self) -> int:
        """Bytes that this end accepted and the network did not."""
        return len(self._unsent)

    def vanish(self) -> None:
        """From now on nothing arrives here and nothing leaves: the other end is a black hole."""
        self._in.black_hole = self._out.black_hole = True

    # --- driven

    @property
    def sending(self) -> bool:
        return len(self._unsent) > 0

    def _receivable(self) -> bool:
        if self._in.buffer and not self._in.black_hole:
            return True
        if self._in.reset:
            raise StreamReset("carrier reset")
        return self._in.eof and not self._in.black_hole

    def receive_nowait(self, into: memoryview) -> int:
        if not self._receivable():
            raise trio.WouldBlock
        size = min(len(into), self._segment(), len(self._in.buffer))
        into[:size] = self._in.buffer[:size]
        del self._in.buffer[:size]
        self._in.touch()
        return size

    async def wait_receivable(self) -> None:
        await trio.lowlevel.checkpoint()
        with contextlib.suppress(StreamReset):
            while not self._receivable():
                await self._in.changed.park()

    def send_nowait(self, data: memoryview) -> None:
        assert not self._unsent, "sending while sending"
        self._unsent = bytes(data[self._accept(data) :])

    async def drain(self) -> None:
        await trio.lowlevel.checkpoint()
        while self._unsent:
            if accepted := self._accept(memoryview(self._unsent)):
                self._unsent = self._unsent[accepted:]
            else:
                await self._out.changed.park()

    def _accept(self, data: memoryview) -> int:
        if self._out.reset:
            raise StreamReset("carrier reset")
        if self._out.eof:
            raise StreamReset("sending behind the end of file")
        if self._out.black_hole:
            return len(data)
        room = max(0, self._out.capacity - len(self._out.buffer))
        self._out.buffer += data[:room]
        self._out.touch()
        return min(room, len(data))

    # --- as a byte stream

    async def receive_some(self, max_bytes: int = 65536) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._in.buffer or self._in.black_hole:
            if self._in.reset:
                raise StreamReset("carrier reset")
            if self._in.eof and not self._in.black_hole:
                return b""
            await self._in.changed.park()
        size = min(max_bytes, self._segment())
        out = bytes(self._in.buffer[:size])
        del self._in.buffer[:size]
        self._in.touch()
        return out

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        view = memoryview(data)
        while view:
            if self._out.reset:
                raise StreamReset("carrier reset")
            if self._out.eof:
                raise StreamReset("sending behind the end of file")
            if self._out.black_hole:
                return
            room = self._out.capacity - len(self._out.buffer)
            if room <= 0:
                await self._out.changed.park()
                continue
            self._out.buffer += view[:room]
            view = view[room:]
            self._out.touch()

    async def send_eof(self) -> None:
        await self.drain()
        if self._out.reset:
            raise StreamReset("carrier reset")
        self._out.eof = True
        self._out.touch()

    def reset(self) -> None:
        self.was_reset = True
        for half in (self._in, self._out):
            half.reset = True
            half.touch()

    async def aclose(self) -> None:
        self._out.eof = True
        self._out.touch()
        await trio.lowlevel.checkpoint()


def carrier_pair(
    *, capacity: int = 1 << 30, segments: list[int] | None = None
) -> tuple[MemoryCarrier, MemoryCarrier]:
    """Two ends. `segments` are the sizes of reads, over and over; all that is there by default."""
    one, other = _Half(capacity), _Half(capacity)
    sizes = cycle(segments or [1 << 30])
    return (
        MemoryCarrier(one, other, lambda: next(sizes)),
        MemoryCarrier(other, one, lambda: next(sizes)),
    )
