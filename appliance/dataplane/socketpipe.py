"""A muxed stream joined to a socket: the last yards to the node beside us.

One task waits for the socket; what arrives on the stream is written by whoever reads the
connection. Only while the socket is full is there a second task. Nothing is queued beyond the
stream's window: bytes are credited once the kernel has them.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from appliance.dataplane.buffers import borrow, give_back
from appliance.dataplane.muxstream import MuxStream
from appliance.dataplane.pipe import PipeCounts, PipeEnd
from appliance.dataplane.seat import Seat
from appliance.dataplane.streams import BATCH
from appliance.dataplane.tcp import TcpStream
from appliance.errors import Fault, StreamReset

Agree = Callable[[bytes], bytes | None]
"""Takes the stream's first bytes until they agree to a protocol: what follows them, or None."""


async def socket_pipe(
    sock: TcpStream,
    stream: MuxStream,
    counts: PipeCounts,
    *,
    leftover: bytes = b"",
    agree: Agree | None = None,
    on_first_backward: Callable[[], None] | None = None,
) -> PipeEnd:
    """Carry bytes both ways, `forward` from `sock` to `stream`, until both directions ended.

    `leftover` was read from the stream before; `agree` looks at what comes in front of the
    payload and may raise a Fault, which is raised here. Half-close and reset are carried too.
    After `Cancelled`, and after a Fault, both are reset. On return neither is usable.
    """
    joint = _Joint(sock, stream, counts, agree, on_first_backward)
    try:
        async with trio.open_nursery() as nursery:
            try:
                joint.begin(nursery, leftover)
                await joint.forward()
                await joint.until_over()
                nursery.cancel_scope.cancel()
            finally:
                joint.stop()
        if joint.fault is not None:
            raise joint.fault
        end = joint.end
        if end is not None and end.clean:
            try:
                await stream.aclose()
            finally:
                await sock.aclose()
    finally:
        if joint.end is None or not joint.end.clean:
            sock.reset()
            stream.reset()
    assert end is not None
    return end


class _Joint:
    """The stream's sink, and what both directions know of each other."""

    def __init__(
        self,
        sock: TcpStream,
        stream: MuxStream,
        counts: PipeCounts,
        agree: Agree | None,
        on_first_backward: Callable[[], None] | None,
    ) -> None:
        self.end: PipeEnd | None = None
        self.fault: Fault | None = None
        self._sock = sock
        self._stream = stream
        self._counts = counts
        self._agree = agree
        self._on_first = on_first_backward
        self._nursery: trio.Nursery | None = None
        # Bytes from the stream that wait for the socket, how many of them are to be credited, and
        # how many of those that the socket is working at.
        self._line = bytearray()
        self._line_credit = self._working_credit = 0
        self._writing = False
        self._forward_over = self._backward_ended = self._backward_over = False
        self._taken = Seat()
        self._over = trio.Event()

    def begin(self, nursery: trio.Nursery, leftover: bytes) -> None:
        self._nursery = nursery
        inbox = self._stream.join(self)
        if leftover:
            self._deliver(memoryview(leftover), credit=0)
        for piece in inbox:
            self.received(memoryview(piece))
        self._stream.tell_sink()
        self._stream.session.flush()

    async def forward(self) -> None:
        """From the socket to the stream, until the socket's end of file or the pipe's end."""
        while self.end is None:
            buffer = borrow()
            try:
                size = self._sock.receive_nowait(buffer[:BATCH])
                if size:
                    self._stream.send_nowait(buffer[:size])
            except trio.WouldBlock:
                size = -1
            except StreamReset:
                self._finish(PipeEnd(clean=False, reset_by="left"))
                return
            finally:
                give_back(buffer)
            if not size:
                self._stream.half_close()
                self._stream.session.flush()
                self._forward_over = True
                self._finish_if_over()
                return
            while self._stream.sending and self.end is None:
                await self._taken.wait()
            await self._wait_for_socket()

    def stop(self) -> None:
        """What comes from now on is dropped: a nursery that closes starts no task for it."""
        self._nursery = None

    async def until_over(self) -> None:
        if self.end is None:
            await self._over.wait()

    async def _wait_for_socket(self) -> None:
        try:
            await self._sock.wait_receivable()
        except StreamReset:
            self._finish(PipeEnd(clean=False, reset_by="left"))

    # --- as the sink of the stream

    def received(self, data: memoryview) -> None:
        self._deliver(data, credit=len(data))

    def ended(self) -> None:
        self._backward_ended = True
        if self._agree is not None:  # in the middle of the negotiation
            self._finish(PipeEnd(clean=False, reset_by="right"))
        else:
            self._end_backward_if_written()

    def lost(self, why: str) -> None:
        self._finish(PipeEnd(clean=False, reset_by="right"))

    def supplied(self, size: int) -> None:
        self._counts.forward += size
        if not self._stream.head:
            self._taken.wake()

    # --- inside

    def _deliver(self, data: memoryview, credit: int) -> None:
        if self.end is not None or self._nursery is None:
            return
        if self._agree is not None:
            try:
                rest = self._agree(bytes(data))
            except Fault as fault:
                self.fault = fault
                self._finish(PipeEnd(clean=False, reset_by="right"))
                return
            if rest is not None:
                self._agree = None
            if not rest:
                self._stream.credit(credit)
                return
            data = memoryview(rest)
        if self._on_first is not None:
            self._on_first()
            self._on_first = None
        self._counts.backward += len(data)
        if self._writing:
            self._line += data
            self._line_credit += credit
            return
        try:
            self._sock.send_nowait(data)
        except StreamReset:
            self._finish(PipeEnd(clean=False, reset_by="left"))
            return
        if self._sock.sending:
            self._writing = True
            self._working_credit = credit
            self._nursery.start_soon(self._write_on)
        elif credit:
            self._stream.credit(credit)

    async def _write_on(self) -> None:
        """Until the socket has taken all that waits."""
        try:
            while True:
                await self._sock.drain()
                if self._working_credit and self.end is None:
                    self._stream.credit(self._working_credit)
                    self._stream.session.flush()
                if not self._line:
                    break
                piece = bytes(self._line[:BATCH])
                del self._line[:BATCH]
                self._working_credit = min(len(piece), self._line_credit)
                self._line_credit -= self._working_credit
                self._sock.send_nowait(memoryview(piece))
        except StreamReset:
            self._finish(PipeEnd(clean=False, reset_by="left"))
            return
        self._writing = False
        self._end_backward_if_written()

    def _end_backward_if_written(self) -> None:
        if not self._backward_ended or self._writing or self._backward_over or self.end is not None:
            return
        try:
            self._sock.half_close()
        except StreamReset:
            self._finish(PipeEnd(clean=False, reset_by="left"))
            return
        self._backward_over = True
        self._finish_if_over()

    def _finish_if_over(self) -> None:
        if self._forward_over and self._backward_over:
            self._finish(PipeEnd(clean=True))

    def _finish(self, end: PipeEnd) -> None:
        if self.end is not None:
            return
        self.end = end
        self._over.set()
        self._taken.wake()
        if not end.clean and self._nursery is not None:
            # Whoever waits for the socket: it does not matter any more.
            self._nursery.cancel_scope.cancel()
