"""The trio driver of a multiplexed connection: one task that reads, streams without any.

`Session` is our interface to any muxer: `open_stream`, an `on_stream` callback for what the peer
opens, `ping`, `close`, and `closed_reason` afterwards. The connection's owner runs `run()`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

import trio

from appliance.dataplane.buffers import borrow, give_back
from appliance.dataplane.frames import (
    DataReceived,
    EofReceived,
    Event,
    GoAwayReceived,
    PongReceived,
    ResetReceived,
    StreamOpened,
    StreamRefused,
    WindowOpened,
)
from appliance.dataplane.muxstream import MuxStream
from appliance.dataplane.outbound import Outbound
from appliance.dataplane.plane import Plane
from appliance.dataplane.streams import BATCH, Carrier
from appliance.dataplane.unread import Unread
from appliance.dataplane.vigil import Look, Vigil
from appliance.dataplane.yamux import Yamux
from appliance.errors import Fault, LocalProtocolError, StreamReset
from appliance.reasons import Reason

__all__ = ["MuxStream", "Session"]

CLOSE_LINGER: Final = 60.0
"""Seconds that a stream which we closed may stay half open; then it is reset (go-yamux: 5 min)."""
_LAST_WORDS: Final = 1.0
_GO_AWAY_NORMAL: Final = 0
_GO_AWAY_PROTOCOL: Final = 1


class Session:
    """Drives one `Yamux` over `carrier`. All methods but `run` may be called from any task.

    Connections whose streams are to be joined (`splice`) share a `plane`.
    """

    __slots__ = (
        "_carrier", "_closing", "_finishing", "_going_away", "_heard", "_machine", "_outbound",
        "_parked", "_pings", "_scope", "_streams", "_unread", "_vigil", "_violation", "closed",
        "closed_detail", "closed_reason", "peer_going_away", "plane", "released", "streams_refused",
    )  # fmt: skip

    def __init__(
        self,
        carrier: Carrier,
        *,
        client: bool,
        max_inbound: int = 64,
        plane: Plane | None = None,
    ) -> None:
        self._carrier = carrier
        self.plane: Final = plane or Plane()
        self._machine = Yamux(client=client, max_inbound=max_inbound, windows=self.plane.windows())
        lost = partial(self.abort, Reason.CONNECTION_LOST)
        self._outbound = Outbound(carrier, self._machine, self.plane, lost)
        self._streams: dict[int, MuxStream] = {}
        # Streams that we closed and the peer did not, with the time of their end.
        self._closing: dict[int, float] = {}
        self._pings: dict[int, trio.Event] = {}
        self._vigil = Vigil()
        self._scope: trio.CancelScope | None = None
        self._finishing = False
        # Whether the reader waits for its carrier, and will not flush what others leave behind.
        self._parked = True
        self._unread = Unread(self.plane)
        self._heard = trio.Event()
        # The peer's fault, from when it was noticed: it comes before what follows from it.
        self._violation: Reason | None = None
        self.closed = trio.Event()
        self.released = trio.Event()
        """Set once `run` is over and the carrier was let go."""
        self.closed_reason: Reason | None = None
        self.closed_detail = ""
        self.peer_going_away = False
        # Why we said goodbye.
        self._going_away: Reason | None = None
        self.streams_refused = 0

    async def first_byte(self) -> float:
        """When the first bytes of the peer's muxer came (monotonic seconds), waiting for them."""
        await self._heard.wait()
        return self._vigil.first_heard

    @property
    def unread(self) -> int:
        """Bytes that came on streams and were not used up yet."""
        return self._unread.held

    @property
    def open_streams(self) -> int:
        return self._machine.open_streams

    # --- life

    async def run(self, on_stream: Callable[[MuxStream], None]) -> Reason:
        """Until the connection ends, for the returned reason; every stream is then reset.

        `on_stream` gets each stream that the peer opens; it must neither block nor raise.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._vigil.begin(trio.current_time())
                self._outbound.begin(nursery)
                self.plane.flush()
                try:
                    while not await self._read_until(self._vigil.look_at, on_stream):
                        self._look()
                finally:
                    # Before the nursery closes: until then others may pump, which needs it.
                    self._end(Reason.CONNECTION_LOST)
                    nursery.cancel_scope.cancel()
        finally:
            self._outbound.let_go()
            self._carrier.reset()
            self.released.set()
            self.plane.flush()
        assert self.closed_reason is not None
        return self.closed_reason

    def abort(self, reason: Reason) -> None:
        """End the connection at once, without a word to the peer."""
        self._end(reason)
        if self._scope is not None:
            self._scope.cancel()
        self._finishing = True
        self.plane.flush()

    async def close(self, reason: Reason, *, patience: float = 1.0) -> None:
        """Say go-away, flush what streams have sent, end our half and wait for the peer's.

        Takes at most `patience` seconds. Afterwards, also after `Cancelled`, the session is over.
        """
        try:
            with trio.move_on_after(patience):
                if self._going_away is None and not self.closed.is_set():
                    self._going_away = reason
                    self._machine.go_away(_GO_AWAY_NORMAL)
                    await self._outbound.flushed()
                    if not self.closed.is_set():
                        self._end(reason)
                        # In order: a reset would destroy what is still on its way.
                        await self._carrier.send_eof()
                await self.released.wait()
        except StreamReset:
            pass  # the carrier went first
        finally:
            self.abort(reason)

    def open_stream(self) -> MuxStream:
        """A new stream, announced to the peer at once. Raises StreamReset."""
        if self.closed.is_set() or self._going_away is not None or self.peer_going_away:
            raise StreamReset(self.closed_detail or "the connection is closing")
        try:
            stream_id = self._machine.open_stream()
        except LocalProtocolError as error:
            raise StreamReset(error.detail) from None
        stream = self._streams[stream_id] = MuxStream(self, stream_id)
        self._outbound.touch()
        self.plane.flush()
        return stream

    async def ping(self) -> float:
        """Seconds of one round trip through the muxer. Raises StreamReset if it never returns."""
        if self.closed.is_set():
            raise StreamReset(Reason.CONNECTION_LOST.value)
        value, started = self._ask(), trio.current_time()
        answered = self._pings[value] = trio.Event()
        self.plane.flush()
        try:
            await answered.wait()
        finally:
            self._pings.pop(value, None)
        if self.closed.is_set():
            raise StreamReset(Reason.CONNECTION_LOST.value)
        return trio.current_time() - started

    # --- for MuxStream (`muxstream.Muxer`)

    def window_of(self, stream: MuxStream) -> int:
        return self._machine.send_window(stream.stream_id)

    def offer(self, stream: MuxStream) -> None:
        self._outbound.offer(stream)

    def pump(self) -> None:
        self._outbound.pump()

    def flush(self) -> None:
        self.plane.flush()

    def flush_credit(self) -> None:
        """Grants may wait for the reader's next step, if it comes without waiting."""
        if self._parked:
            self.plane.flush()

    def add_unread(self, size: int) -> None:
        if not self.closed.is_set():
            self._unread.add(size)

    def credit(self, stream: MuxStream, consumed: int) -> None:
        now = trio.current_time()
        self._machine.credit(stream.stream_id, consumed, now=now, rtt=self._vigil.rtt)
        if self._machine.backlog or not self._vigil.measured:
            # The first time while it is quiet: under load a ping also measures the queues.
            if (value := self._vigil.measure(now)) is not None:
                self._machine.ping(value)
            self._outbound.touch()
        self.forget_if_over(stream)

    def send_eof(self, stream: MuxStream) -> None:
        # The machine is a read ahead of the events: the stream's reset may be among them.
        with suppress(LocalProtocolError):
            self._machine.send_eof(stream.stream_id)
        self.forget_if_over(stream)
        self._outbound.touch()

    def reset_stream(self, stream: MuxStream) -> None:
        self._machine.reset(stream.stream_id)
        self._outbound.leave(stream)
        self._streams.pop(stream.stream_id, None)
        self._closing.pop(stream.stream_id, None)
        self._outbound.touch()

    def reset_unless_it_ends(self, stream: MuxStream) -> None:
        """Nobody reads this stream any more, but its end of file is still welcome for a while."""
        if stream.stream_id in self._streams:
            self._closing[stream.stream_id] = trio.current_time() + CLOSE_LINGER

    # --- receiving

    async def _read_until(self, when: float, on_stream: Callable[[MuxStream], None]) -> bool:
        """Read; True once the connection is over, False at that time."""
        with trio.CancelScope(deadline=when) as self._scope:
            if not self._finishing:
                await self._read(on_stream)
            return True
        return self._finishing

    async def _read(self, on_stream: Callable[[MuxStream], None]) -> None:
        carrier = self._carrier
        try:
            while True:
                if self._unread.too_much:
                    await self._pause()
                try:
                    size = self._step(on_stream)
                except trio.WouldBlock:
                    size = -1
                if not size:
                    self.closed_detail = "the peer closed it"
                    return
                if size >= BATCH // 2:
                    await trio.lowlevel.checkpoint()
                else:
                    self.plane.flush()
                    self._parked = True
                    await carrier.wait_receivable()
        except StreamReset as error:
            self.closed_detail = str(error)
        except Fault as fault:
            self.closed_detail = fault.detail
            self._finishing = True
            try:
                if fault.reason is not Reason.NOISE_VIOLATION:
                    self._machine.go_away(_GO_AWAY_PROTOCOL)
                    with trio.move_on_after(_LAST_WORDS):
                        await self._outbound.flushed()
            finally:
                self._end(fault.reason)

    def _step(self, on_stream: Callable[[MuxStream], None]) -> int:
        """Receive what is there and do all that follows from it. Bytes received."""
        self._parked = False
        buffer = borrow()
        try:
            size = self._carrier.receive_nowait(buffer[:BATCH])
            if size:
                self._received(buffer[:size], on_stream)
            return size
        except Fault as fault:
            self._violation = fault.reason
            raise
        finally:
            self.plane.settle()
            give_back(buffer)

    def _received(self, data: memoryview, on_stream: Callable[[MuxStream], None]) -> None:
        self._vigil.heard(trio.current_time())
        self._heard.set()
        for event in self._machine.receive(data):
            self._handle(event, on_stream)
        if self._machine.backlog:
            self._outbound.touch()

    def _handle(self, event: Event, on_stream: Callable[[MuxStream], None]) -> None:
        match event:
            case DataReceived(stream_id, data):
                if (known := self._streams.get(stream_id)) is None:
                    return
                if stream_id in self._closing:
                    known.reset()
                else:
                    known.deliver(data)
            case WindowOpened(stream_id):
                if (known := self._streams.get(stream_id)) is not None and known.head:
                    self.offer(known)
            case StreamOpened(stream_id) if not self.closed.is_set():
                stream = MuxStream(self, stream_id)
                self._streams[stream_id] = stream
                on_stream(stream)
            case StreamRefused():
                self.streams_refused += 1
            case EofReceived(stream_id):
                if (known := self._streams.get(stream_id)) is not None:
                    known.deliver_eof()
                    self.forget_if_over(known)
            case ResetReceived(stream_id):
                if (known := self._streams.pop(stream_id, None)) is not None:
                    self._closing.pop(stream_id, None)
                    self._outbound.leave(known)
                    known.mark_reset(Reason.PEER_RESET.value)
            case PongReceived(value):
                self._vigil.answered(value)
                if (answered := self._pings.get(value)) is not None:
                    answered.set()
            case GoAwayReceived():
                self.peer_going_away = True

    def forget_if_over(self, stream: MuxStream) -> None:
        """What ended both ways is kept for as long as it holds something unread."""
        if stream.over and not stream.unread:
            self._streams.pop(stream.stream_id, None)
            self._closing.pop(stream.stream_id, None)

    async def _pause(self) -> None:
        """Do not read while too much is held."""
        self._parked = True
        await self._unread.wait(
            lambda: max(self._streams.values(), key=lambda stream: stream.unread).reset()
        )
        self._vigil.heard(trio.current_time())

    # --- signs of life

    def _ask(self) -> int:
        value = self._vigil.new_ping()
        self._machine.ping(value)
        self._outbound.touch()
        return value

    def _look(self) -> None:
        now = trio.current_time()
        if self._unread.too_much:
            self._vigil.heard(now)  # it is we who do not listen
        for stream_id in [i for i, ends in self._closing.items() if ends <= now]:
            self._streams[stream_id].reset()
        look = self._vigil.look(now)
        if self.closed.is_set() or look is Look.FINE:
            return
        if look is Look.GONE:
            self.abort(Reason.PING_TIMEOUT)
        else:
            self._ask()
            self.plane.flush()

    def _end(self, reason: Reason) -> None:
        if self.closed.is_set():
            return
        if reason is Reason.CONNECTION_LOST and self._going_away is not None:
            reason = self._going_away  # the peer hung up first
        reason = self._violation or reason
        self.closed_reason = reason
        self.closed.set()
        self._outbound.end()
        for stream in list(self._streams.values()):
            if not stream.over:
                stream.mark_reset(reason.value, connection=True)
        self._streams.clear()
        self._closing.clear()
        for answered in self._pings.values():
            answered.set()
        self._machine.end()
        self._unread.end()
