"""One stream of a multiplexed connection, without a task of its own.

What arrives waits here for its reader; what is sent goes straight into the session's backlog, or
waits for the peer's window or for room.
"""

from __future__ import annotations

from typing import Protocol

import trio

from appliance.errors import StreamReset


class Muxer(Protocol):
    """What a stream asks of its session."""

    def send_part(self, stream: MuxStream, view: memoryview) -> int:
        """Queue a prefix of `view`; its length, 0 without window or room."""
        ...

    def window_of(self, stream: MuxStream) -> int: ...

    async def wait_for_room(self) -> None: ...

    def credit(self, stream: MuxStream, consumed: int) -> None: ...

    def send_eof(self, stream: MuxStream) -> None: ...

    def reset_stream(self, stream: MuxStream) -> None: ...

    def reset_unless_it_ends(self, stream: MuxStream) -> None: ...


class MuxStream:
    """One stream of a session: a `ByteStream`. Holds at most its receive window of unread bytes.

    Sending behind our own end of file is `trio.ClosedResourceError`; receiving from a stream that
    was closed here is `StreamReset`.
    """

    __slots__ = ("_buffer", "_closed", "_eof", "_receiving", "_reset", "_sending", "_sent_eof",
                 "_wake", "_window", "session", "stream_id")  # fmt: skip

    def __init__(self, session: Muxer, stream_id: int) -> None:
        self.session = session
        self.stream_id = stream_id
        self._buffer = bytearray()
        self._eof = False
        self._reset: str | None = None
        self._sent_eof = False
        self._closed = False
        self._wake = trio.lowlevel.ParkingLot()
        self._window = trio.lowlevel.ParkingLot()
        self._receiving = False
        self._sending = False

    async def receive_some(self, max_bytes: int = 65536) -> bytes:
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            while not self._buffer:
                if self._reset is not None:
                    raise StreamReset(self._reset)
                if self._closed:
                    raise StreamReset("closed here")
                if self._eof:
                    return b""
                await self._wake.park()
        finally:
            self._receiving = False
        out = bytes(self._buffer[:max_bytes])
        del self._buffer[:max_bytes]
        self.session.credit(self, len(out))
        return out

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            view = memoryview(data)
            while view:
                if self._reset is not None:
                    raise StreamReset(self._reset)
                if self._sent_eof:
                    raise trio.ClosedResourceError("end of file was sent")
                sent = self.session.send_part(self, view)
                view = view[sent:]
                if not view:
                    break
                if self.session.window_of(self) == 0:
                    await self._window.park()
                else:
                    await self.session.wait_for_room()
        finally:
            self._sending = False

    async def send_eof(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        await trio.lowlevel.checkpoint()
        if self._reset is not None:
            raise StreamReset(self._reset)
        self._half_close()

    def reset(self) -> None:
        if self._reset is None and not self.over:
            self.session.reset_stream(self)
        self.mark_reset("reset here")

    async def aclose(self) -> None:
        """Half-close if that is still to do; what the peer sends from now on resets the stream.

        So do bytes that came and were not read, since the peer may wait for the window that they
        take, and a `send_all` in progress, whose end would look like a clean one. Tasks that
        wait on the stream wake up. Never raises StreamReset; holds after `Cancelled`.
        """
        if self._sending or (self._buffer and not self._eof):
            self.reset()
        elif self._reset is None and not self._closed:
            self._closed = True
            self._half_close()
            self._buffer.clear()
            self._wake.unpark_all()
            if not self._eof:
                self.session.reset_unless_it_ends(self)
        await trio.lowlevel.checkpoint()

    def _half_close(self) -> None:
        if not self._sent_eof:
            self._sent_eof = True
            self.session.send_eof(self)

    # --- called by the session

    def deliver(self, data: bytes) -> None:
        self._buffer += data
        self._wake.unpark_all()

    def deliver_eof(self) -> None:
        self._eof = True
        self._wake.unpark_all()

    @property
    def over(self) -> bool:
        """Both ends of file were said: the muxer knows the stream no more."""
        return self._eof and self._sent_eof

    def mark_reset(self, why: str) -> None:
        """No more traffic; unread bytes are dropped, waiters learn it."""
        if self._reset is None:
            self._reset = why
            self._buffer.clear()
            self._wake.unpark_all()
            self._window.unpark_all()

    def window_opened(self) -> None:
        self._window.unpark_all()
