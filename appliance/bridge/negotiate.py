"""Byte streams on which a protocol was chosen with multistream-select."""

from __future__ import annotations

from collections.abc import Callable

import trio

from appliance.dataplane.streams import Carrier
from appliance.errors import LocalProtocolError, StreamReset
from appliance.reasons import Reason
from appliance.wire import multistream
from appliance.wire.framing import MAX_MESSAGE, Deframer, frame

_READ = 64 * 1024


class NegotiatedStream:
    """A `Carrier` speaking `protocol`, with reads of messages and of exact sizes on top.

    Made by `propose` the choice travels in front of our first bytes, and the peer's agreement is
    looked for in front of its first bytes: no round trip is spent on it. A refusal then shows as
    `RemoteProtocolError(unsupported-protocol)` from the first receive. Whoever is cancelled while
    the proposal is on its way resets the stream: part of it may have been sent.
    """

    __slots__ = ("_buffer", "_dialler", "_prefix", "_sending", "inner", "protocol")

    def __init__(self, inner: Carrier, protocol: str, *, buffered: bytes = b"") -> None:
        self.inner = inner
        self.protocol = protocol
        self._buffer = bytearray(buffered)
        self._dialler: multistream.Dialler | None = None
        self._prefix = b""
        # A receiver may have to send the proposal while another task sends the first bytes.
        self._sending: trio.Lock | None = None

    @classmethod
    def propose(cls, inner: Carrier, protocol: str) -> NegotiatedStream:
        stream = cls(inner, protocol)
        stream._dialler = multistream.Dialler(protocol)
        stream._prefix = stream._dialler.to_send
        stream._sending = trio.Lock()
        return stream

    # --- driven

    @property
    def sending(self) -> bool:
        # Nothing may overtake a proposal on its way.
        return self.inner.sending or (self._sending is not None and self._sending.locked())

    def receive_nowait(self, into: memoryview) -> int:
        if self._buffer:
            size = min(len(self._buffer), len(into))
            into[:size] = self._buffer[:size]
            del self._buffer[:size]
            return size
        size = self.inner.receive_nowait(into)
        if self._dialler is None:
            return size
        if size == 0:
            raise StreamReset("the stream ended during negotiation")
        rest = self._dialler.receive(bytes(into[:size]))
        if rest is not None:
            self._dialler = None
        if not rest:
            raise trio.WouldBlock
        into[: len(rest)] = rest
        return len(rest)

    async def wait_receivable(self) -> None:
        if self._prefix:
            await self.flush()
        if self._buffer:
            await trio.lowlevel.checkpoint()
        else:
            await self.inner.wait_receivable()

    def send_nowait(self, data: memoryview) -> None:
        if not self._prefix:
            self.inner.send_nowait(data)
            return
        prefix, self._prefix = self._prefix, b""
        self.inner.send_nowait(memoryview(prefix + bytes(data)))

    async def drain(self) -> None:
        if self._sending is not None:
            async with self._sending:
                pass
        await self.inner.drain()

    # --- as a byte stream

    async def receive_some(self, max_bytes: int = 65536) -> bytes:
        if self._prefix:
            await self.flush()
        while not self._buffer:
            if self._dialler is None:
                return await self.inner.receive_some(max_bytes)
            # The answer to our proposal may come alone, with no byte of the protocol behind it.
            await self._fill()
        await trio.lowlevel.checkpoint()
        out = bytes(self._buffer[:max_bytes])
        del self._buffer[:max_bytes]
        return out

    async def receive_exactly(self, count: int) -> bytes:
        """Raises StreamReset if the stream ends before that."""
        if self._prefix:
            await self.flush()
        while len(self._buffer) < count:
            if not await self._fill():
                raise StreamReset("the stream ended early")
        out = bytes(self._buffer[:count])
        del self._buffer[:count]
        return out

    async def receive_message(self, max_message: int = MAX_MESSAGE) -> bytes:
        """One varint-framed message. Raises RemoteProtocolError, or StreamReset at the end.

        After `Cancelled` nothing is lost.
        """
        if self._prefix:
            await self.flush()
        deframer = Deframer(max_message)
        try:
            deframer.feed(self.take_buffered())
            while (message := deframer.next_message()) is None:
                if not await self._fill():
                    raise StreamReset("the stream ended inside a message")
                deframer.feed(self.take_buffered())
        finally:
            # What came behind the message, or its first part if we were cancelled.
            self._buffer[:0] = deframer.take_rest()
        return message

    async def send_message(self, message: bytes) -> None:
        await self.send_all(frame(message))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._sending is None:
            await self.inner.send_all(data)
            return
        async with self._sending:
            if not self._prefix:
                await self.inner.send_all(data)
                return
            prefix, self._prefix = self._prefix, b""
            try:
                await self.inner.send_all(prefix + bytes(data))
            except BaseException:  # Cancelled too
                # Later bytes without the whole proposal in front of them would be garbage.
                self.inner.reset()
                raise

    async def flush(self) -> None:
        """Send the proposal, if it still waits for company."""
        if self._prefix:
            await self.send_all(b"")

    async def confirmed(self) -> None:
        """Wait until the peer agreed. Raises RemoteProtocolError if it does not."""
        await self.flush()
        while self._dialler is not None:
            if not await self._fill():
                raise StreamReset("the stream ended during negotiation")

    async def send_eof(self) -> None:
        await self.flush()
        await self.inner.send_eof()

    def reset(self) -> None:
        self._prefix = b""
        self.inner.reset()

    async def aclose(self) -> None:
        await self.inner.aclose()

    def unwrapped(self) -> tuple[Carrier, bytes]:
        """The stream underneath and what was read of it but not received: agreed and flushed.

        For whoever carries bytes on without asking what they are; raises LocalProtocolError
        while the protocol is not agreed. This object is not used afterwards.
        """
        if self._dialler is not None:
            raise LocalProtocolError(Reason.UNEXPECTED_MESSAGE, "the protocol is not agreed yet")
        return self.inner, self.take_buffered()

    @property
    def agreement(self) -> Callable[[bytes], bytes | None] | None:
        """What still has to see the first bytes, if the peer has not agreed yet: it gives what
        follows the agreement, None before it is whole, and raises RemoteProtocolError."""
        return None if self._dialler is None else self._dialler.receive

    def take_buffered(self) -> bytes:
        """What was read but not yet received by anybody."""
        out = bytes(self._buffer)
        self._buffer.clear()
        return out

    async def _fill(self) -> bool:
        data = await self.inner.receive_some(_READ)
        if not data:
            if self._dialler is not None:
                raise StreamReset("the stream ended during negotiation")
            return False
        if self._dialler is not None:
            rest = self._dialler.receive(data)
            if rest is None:
                return True
            self._dialler = None
            data = rest
        self._buffer += data
        return True


async def accept(inner: Carrier, supports: Callable[[str], bool]) -> NegotiatedStream:
    """Answer the peer's proposals until one is supported.

    Raises RemoteProtocolError, or StreamReset if the peer goes away; the caller resets `inner`.
    """
    listener = multistream.Listener(supports)
    while listener.protocol is None:
        data = await inner.receive_some(_READ)
        if not data:
            raise StreamReset("the stream ended during negotiation")
        try:
            rest = listener.receive(data)
        finally:
            # A "na" goes out even if what follows it, sent in good hope, makes no sense here.
            if answer := listener.data_to_send():
                await inner.send_all(answer)
        if rest is not None and listener.protocol is not None:
            return NegotiatedStream(inner, listener.protocol, buffered=rest)
    raise LocalProtocolError(Reason.UNEXPECTED_MESSAGE, "negotiation went past its end")
