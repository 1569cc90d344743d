"""One stream of a multiplexed connection, without a task of its own.

What arrives waits here for its reader, or goes straight into a `Sink`; what is sent stays with
its sender until it is the stream's turn on the connection.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

import trio

from appliance.dataplane.seat import Seat
from appliance.errors import StreamReset
from appliance.units import KIB

_NOTHING: Final = memoryview(b"")
_SMALL: Final = 4 * KIB
"""Pieces below this are gathered, so that unread bytes cost about what they weigh."""
_GATHERED: Final = 64 * KIB
_CHECKPOINT_EVERY: Final = 256 * KIB
"""Bytes that a task may send and receive on a stream without giving way to others: a checkpoint
costs as much as sealing 40 KiB."""


class Muxer(Protocol):
    """What a stream asks of its session."""

    def window_of(self, stream: MuxStream) -> int:
        """Bytes that the peer is ready to take."""
        ...

    def offer(self, stream: MuxStream) -> None:
        """The stream has bytes at its `head`; they go out when it is its turn."""
        ...

    def flush(self) -> None:
        """Send what can be sent now."""
        ...

    def flush_credit(self) -> None:
        """Let the peer know soon what was credited."""
        ...

    def pump(self) -> None:
        """`flush` for this connection alone."""
        ...

    def add_unread(self, size: int) -> None: ...

    def credit(self, stream: MuxStream, consumed: int) -> None: ...

    def send_eof(self, stream: MuxStream) -> None: ...

    def forget_if_over(self, stream: MuxStream) -> None:
        """It may have been the last that it held."""
        ...

    def reset_stream(self, stream: MuxStream) -> None: ...

    def reset_unless_it_ends(self, stream: MuxStream) -> None: ...


class Sink(Protocol):
    """Takes what arrives on a stream, instead of a reader. Nothing here waits or raises."""

    def received(self, data: memoryview) -> None:
        """`data` is good until the end of the step; `credit` the stream once it is used up."""
        ...

    def ended(self) -> None:
        """The peer's end of file."""
        ...

    def lost(self, why: str) -> None:
        """The stream was reset, here or there."""
        ...

    def supplied(self, size: int) -> None:
        """`size` bytes of the stream's `head` went out; set the next ones if it is empty."""
        ...


class MuxStream:
    """One stream of a session: a `Carrier`. Holds at most its receive window of unread bytes.

    Sending behind our own end of file is `trio.ClosedResourceError`; receiving from a stream that
    was closed here is `StreamReset`.
    """

    __slots__ = ("_closed", "_eof", "_inbox", "_kept", "_reader", "_receiving", "_reset",
                 "_sending", "_sent_eof", "_since_checkpoint", "_sink", "_writer", "deficit",
                 "head", "place", "session", "stream_id", "unread", "weight")  # fmt: skip

    def __init__(self, session: Muxer, stream_id: int) -> None:
        self.session = session
        self.stream_id = stream_id
        self.head = _NOTHING
        """The next bytes to send; who sets them says `session.offer`."""
        self.unread = 0
        """Bytes that came and were not credited yet."""
        self.place = self.deficit = 0
        self.weight = 1
        self._inbox: deque[bytes | bytearray | memoryview] | None = None
        self._eof = False
        self._reset: str | None = None
        # All had come when the connection ended, and may still be read.
        self._kept = False
        self._sent_eof = False
        self._closed = False
        self._reader = Seat()
        self._writer = Seat()
        self._receiving = False
        self._sending = False
        self._since_checkpoint = 0
        self._sink: Sink | None = None

    # --- as a byte stream

    async def receive_some(self, max_bytes: int = 65536) -> bytes:
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self._receiving = True
        try:
            await self._give_way(0)
            while not self._inbox:
                if self._at_end():
                    await trio.lowlevel.checkpoint()
                    return b""
                await self._reader.wait()
        finally:
            self._receiving = False
        out = self._take(max_bytes)
        self._since_checkpoint += len(out)
        self.credit(len(out))
        self.session.flush_credit()
        return out

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            await self._give_way(len(data))
            if not data:
                return
            self._raise_if_not_sendable()
            self.head = memoryview(data)
            self.session.offer(self)
            self.session.flush()
            self._raise_if_not_sendable()
            while self.head:
                await self._writer.wait()
                self._raise_if_not_sendable()
        finally:
            self.head = _NOTHING
            self._sending = False

    async def send_eof(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        await trio.lowlevel.checkpoint()
        await self.drain()
        if self._reset is not None:
            raise StreamReset(self._reset)
        self.half_close()
        self.session.flush()

    def reset(self) -> None:
        if self._reset is None:
            self.session.reset_stream(self)
        self.mark_reset("reset here")
        self.session.flush()

    async def aclose(self) -> None:
        """Half-close if that is still to do; what the peer sends from now on resets the stream.

        So do bytes that came and were not read, since the peer may wait for the window that they
        take, and bytes that were not sent yet, whose end would look like a clean one. Tasks that
        wait on the stream wake up. Never raises StreamReset; holds after `Cancelled`.
        """
        if self._sending or self.head or (self._inbox and not self._eof):
            self.reset()
        elif self._reset is None and not self._closed:
            self._closed = True
            self._drop_unread()
            self.half_close()
            self.session.forget_if_over(self)
            self._reader.wake()
            if not self._eof:
                self.session.reset_unless_it_ends(self)
            self.session.flush()
        await trio.lowlevel.checkpoint()

    # --- driven

    @property
    def sending(self) -> bool:
        return len(self.head) > 0

    def receive_nowait(self, into: memoryview) -> int:
        if not self._inbox:
            if self._at_end():
                return 0
            raise trio.WouldBlock
        data = self._take(len(into))
        into[: len(data)] = data
        self.credit(len(data))
        return len(data)

    async def wait_receivable(self) -> None:
        if self._inbox or self._eof or self._reset is not None or self._closed:
            await trio.lowlevel.checkpoint()
        else:
            await self._reader.wait()

    def send_nowait(self, data: memoryview) -> None:
        self._raise_if_not_sendable()
        self.head = data
        self.session.offer(self)
        self.session.pump()
        if self.head:
            self.head = memoryview(bytes(self.head))

    async def drain(self) -> None:
        while self.head:
            await self._writer.wait()
            self._raise_if_not_sendable()

    # --- joined to something else

    def join(self, sink: Sink) -> list[bytes]:
        """From now on what arrives goes to `sink`; what is here already is returned, uncredited.

        The end of file and a reset are told to `sink` too, also if they happened before.
        """
        inbox = [bytes(piece) for piece in self._inbox or ()]
        self._inbox = None
        self._sink = sink
        return inbox

    def tell_sink(self) -> None:
        """Tell the sink what had happened before it came."""
        if self._sink is not None and self._reset is not None:
            self._sink.lost(self._reset)
        elif self._sink is not None and self._eof:
            self._sink.ended()

    def credit(self, size: int) -> None:
        """`size` bytes that came were used up. Whoever drives the connection flushes."""
        if self._reset is not None and not self._kept:
            return
        self.unread -= size
        self.session.add_unread(-size)
        self.session.credit(self, size)

    def half_close(self) -> None:
        """`send_eof` without a checkpoint, by whoever sends. Whoever drives flushes."""
        if not self._sent_eof:
            self._sent_eof = True
            self.session.send_eof(self)

    # --- called by the session

    @property
    def sendable(self) -> int:
        return min(len(self.head), self.session.window_of(self)) if self.head else 0

    @property
    def over(self) -> bool:
        """Both ends of file were said: the muxer knows the stream no more."""
        return self._eof and self._sent_eof

    def deliver(self, data: memoryview) -> None:
        self.unread += len(data)
        self.session.add_unread(len(data))
        if self._sink is not None:
            self._sink.received(data)
            return
        if self._inbox is None:
            self._inbox = deque()
        last = self._inbox[-1] if self._inbox else None
        if len(data) >= _SMALL:
            self._inbox.append(bytes(data))
        elif isinstance(last, bytearray) and len(last) < _GATHERED:
            last += data
        else:
            self._inbox.append(bytearray(data))
        self._reader.wake()

    def deliver_eof(self) -> None:
        self._eof = True
        self._reader.wake()
        if self._sink is not None:
            self._sink.ended()

    def taken(self, size: int) -> None:
        """The first `size` bytes of `head` went out."""
        self.head = self.head[size:]
        if self._sink is not None:
            self._sink.supplied(size)
        elif not self.head:
            self._writer.wake()

    def mark_reset(self, why: str, *, connection: bool = False) -> None:
        """No more traffic; unread bytes are dropped, waiters learn it.

        With its `connection` a stream loses nothing that had come up to the peer's end of file.
        """
        self._kept = connection and self._eof and not self._closed and self._sink is None
        if not self._kept:
            self._drop_unread()
        if self._reset is not None:
            return
        self._reset = why
        self.head = _NOTHING
        self._reader.wake()
        self._writer.wake()
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.lost(why)

    # --- inside

    def _at_end(self) -> bool:
        """With nothing to read: whether nothing will come. Raises StreamReset."""
        if self._reset is not None and not self._kept:
            raise StreamReset(self._reset)
        if self._closed:
            raise StreamReset("closed here")
        return self._eof

    def _raise_if_not_sendable(self) -> None:
        if self._reset is not None:
            raise StreamReset(self._reset)
        if self._sent_eof:
            raise trio.ClosedResourceError("end of file was sent")

    async def _give_way(self, size: int) -> None:
        self._since_checkpoint += size
        if self._since_checkpoint < _CHECKPOINT_EVERY:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            self._since_checkpoint = 0
            await trio.lowlevel.checkpoint()

    def _take(self, max_bytes: int) -> bytes:
        """All that is here, up to `max_bytes`; there is something."""
        inbox = self._inbox
        assert inbox
        pieces, left = [], max_bytes
        while inbox and left:
            piece = inbox.popleft()
            if len(piece) > left:
                view = memoryview(piece)
                inbox.appendleft(view[left:])
                piece = view[:left]
            pieces.append(piece)
            left -= len(piece)
        if len(pieces) == 1 and isinstance(pieces[0], bytes):
            return pieces[0]
        return b"".join(pieces)

    def _drop_unread(self) -> None:
        self._inbox = None
        self.session.add_unread(-self.unread)
        self.unread = 0
