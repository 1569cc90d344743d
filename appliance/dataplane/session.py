"""The trio driver of a multiplexed connection: one reader, one writer, streams without tasks.

`Session` is our interface to any muxer: `open_stream`, an `on_stream` callback for what the peer
opens, `ping`, `close`, and `closed_reason` afterwards. The connection's owner runs `run()`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import trio

from appliance.dataplane.muxstream import MuxStream
from appliance.dataplane.streams import ByteStream
from appliance.dataplane.yamux import (
    DataReceived,
    EofReceived,
    Event,
    GoAwayReceived,
    PongReceived,
    ResetReceived,
    StreamOpened,
    StreamRefused,
    WindowOpened,
    Yamux,
)
from appliance.errors import Fault, LocalProtocolError, StreamReset
from appliance.reasons import Reason
from appliance.units import KIB

__all__ = ["MuxStream", "Session"]

MAX_BACKLOG: Final = 256 * KIB
"""Bytes of frames waiting for the carrier before senders wait."""
READ_SIZE: Final = 128 * KIB
PING_INTERVAL: Final = 30.0
"""Seconds of silence before we ask for a sign of life (go-yamux: 30 s)."""
PING_DEADLINE: Final = 15.0
"""Seconds until an unanswered ping ends the connection: an answer takes one round trip plus the
peer's backlog, far below this."""
CLOSE_LINGER: Final = 60.0
"""Seconds that a stream which we closed may stay half open; then it is reset (go-yamux: 5 min)."""
_GO_AWAY_NORMAL: Final = 0
_GO_AWAY_PROTOCOL: Final = 1


class Session:
    """Drives one `Yamux` over `carrier`. All methods but `run` may be called from any task."""

    def __init__(self, carrier: ByteStream, *, client: bool, max_inbound: int = 64) -> None:
        self._carrier = carrier
        self._machine = Yamux(client=client, max_inbound=max_inbound)
        self._streams: dict[int, MuxStream] = {}
        # Streams that we closed and the peer did not, with the time of their end.
        self._closing: dict[int, float] = {}
        self._work = trio.Event()
        self._room = trio.lowlevel.ParkingLot()
        self._pings: dict[int, trio.Event] = {}
        self._next_ping = 1
        self._scope = trio.CancelScope()
        self._writing = False
        self._finishing = False
        self._heard = trio.Event()
        self._first_heard = self._last_heard = -math.inf
        self.closed = trio.Event()
        self.released = trio.Event()
        """Set once `run` is over and the carrier was let go."""
        self.closed_reason: Reason | None = None
        self.closed_detail = ""
        self.peer_going_away = False
        self._going_away = False
        self.streams_refused = 0

    async def first_byte(self) -> float:
        """When the first bytes of the peer's muxer came (monotonic seconds), waiting for them."""
        await self._heard.wait()
        return self._first_heard

    @property
    def open_streams(self) -> int:
        return self._machine.open_streams

    async def run(self, on_stream: Callable[[MuxStream], None]) -> Reason:
        """Until the connection ends, for the returned reason; every stream is then reset.

        `on_stream` gets each stream that the peer opens; it must neither block nor raise.
        """
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write_loop)
                    nursery.start_soon(self._keepalive)
                    await self._read_loop(on_stream)
                    nursery.cancel_scope.cancel()
        finally:
            self._end(Reason.CONNECTION_LOST)
            self._carrier.reset()
            self.released.set()
        assert self.closed_reason is not None
        return self.closed_reason

    def abort(self, reason: Reason) -> None:
        """End the connection at once, without a word to the peer."""
        self._end(reason)
        self._scope.cancel()

    async def close(self, reason: Reason, *, patience: float = 1.0) -> None:
        """Say go-away, flush what streams have sent, end our half and wait for the peer's.

        Takes at most `patience` seconds. Afterwards, also after `Cancelled`, the session is over.
        """
        try:
            with trio.move_on_after(patience):
                if not self.closed.is_set():
                    self._going_away = True
                    self._machine.go_away(_GO_AWAY_NORMAL)
                    await self._flushed()
                    self._end(reason)
                # Ending the carrier in order: a reset would destroy what is still on its way.
                self._finishing = True
                self._work.set()
                await self.released.wait()
        finally:
            self.abort(reason)

    def open_stream(self) -> MuxStream:
        """A new stream, announced to the peer at once. Raises StreamReset."""
        if self.closed.is_set() or self._going_away or self.peer_going_away:
            raise StreamReset((self.closed_reason or Reason.CONNECTION_LOST).value)
        try:
            stream_id = self._machine.open_stream()
        except LocalProtocolError as error:
            raise StreamReset(error.detail) from None
        stream = self._streams[stream_id] = MuxStream(self, stream_id)
        self._work.set()
        return stream

    async def ping(self) -> float:
        """Seconds of one round trip through the muxer. Raises StreamReset if it never returns."""
        if self.closed.is_set():
            raise StreamReset(Reason.CONNECTION_LOST.value)
        value = self._next_ping = (self._next_ping + 1) & 0xFFFF_FFFF
        answered = self._pings[value] = trio.Event()
        started = trio.current_time()
        try:
            self._machine.ping(value)
            self._work.set()
            await answered.wait()
        finally:
            self._pings.pop(value, None)
        if self.closed.is_set():
            raise StreamReset(Reason.CONNECTION_LOST.value)
        return trio.current_time() - started

    # --- for MuxStream (`muxstream.Muxer`)

    def send_part(self, stream: MuxStream, view: memoryview) -> int:
        if self._machine.backlog >= MAX_BACKLOG:
            return 0
        sent = self._machine.send_data(stream.stream_id, view)
        if sent:
            self._work.set()
        return sent

    def window_of(self, stream: MuxStream) -> int:
        return self._machine.send_window(stream.stream_id)

    async def wait_for_room(self) -> None:
        if self._machine.backlog >= MAX_BACKLOG and not self.closed.is_set():
            await self._room.park()
        else:
            await trio.lowlevel.checkpoint()

    def credit(self, stream: MuxStream, consumed: int) -> None:
        self._machine.credit(stream.stream_id, consumed)
        if self._machine.backlog:
            self._work.set()

    def send_eof(self, stream: MuxStream) -> None:
        self._machine.send_eof(stream.stream_id)
        self._forget_if_over(stream)
        self._work.set()

    def reset_stream(self, stream: MuxStream) -> None:
        self._machine.reset(stream.stream_id)
        self._streams.pop(stream.stream_id, None)
        self._closing.pop(stream.stream_id, None)
        self._work.set()

    def reset_unless_it_ends(self, stream: MuxStream) -> None:
        """Nobody reads this stream any more, but its end of file is still welcome for a while."""
        if stream.stream_id in self._streams:
            self._closing[stream.stream_id] = trio.current_time() + CLOSE_LINGER

    # --- tasks

    async def _read_loop(self, on_stream: Callable[[MuxStream], None]) -> None:
        try:
            while True:
                data = await self._carrier.receive_some(READ_SIZE)
                if not data:
                    self.closed_detail = "the peer closed it"
                    return
                self._last_heard = trio.current_time()
                if not self._heard.is_set():
                    self._first_heard = self._last_heard
                    self._heard.set()
                for event in self._machine.receive(data):
                    self._handle(event, on_stream)
                if self._machine.backlog:
                    self._work.set()
        except StreamReset as error:
            self.closed_detail = str(error)
        except Fault as fault:
            self.closed_detail = fault.detail
            self._machine.go_away(_GO_AWAY_PROTOCOL)
            with trio.move_on_after(1.0):
                await self._flushed()
            self._end(fault.reason)

    def _handle(self, event: Event, on_stream: Callable[[MuxStream], None]) -> None:
        match event:
            case StreamOpened(stream_id):
                stream = MuxStream(self, stream_id)
                self._streams[stream_id] = stream
                on_stream(stream)
            case StreamRefused():
                self.streams_refused += 1
            case DataReceived(stream_id, data):
                if stream_id in self._closing:
                    self._streams[stream_id].reset()
                elif (known := self._streams.get(stream_id)) is not None:
                    known.deliver(data)
            case EofReceived(stream_id):
                if (known := self._streams.get(stream_id)) is not None:
                    known.deliver_eof()
                    self._forget_if_over(known)
            case ResetReceived(stream_id):
                if (known := self._streams.pop(stream_id, None)) is not None:
                    self._closing.pop(stream_id, None)
                    known.mark_reset(Reason.PEER_RESET.value)
            case WindowOpened(stream_id):
                if (known := self._streams.get(stream_id)) is not None:
                    known.window_opened()
            case PongReceived(value):
                if (answered := self._pings.get(value)) is not None:
                    answered.set()
            case GoAwayReceived():
                self.peer_going_away = True

    def _forget_if_over(self, stream: MuxStream) -> None:
        if stream.over:
            self._streams.pop(stream.stream_id, None)
            self._closing.pop(stream.stream_id, None)

    async def _write_loop(self) -> None:
        while True:
            await self._work.wait()
            self._work = trio.Event()
            self._writing = True
            try:
                while self._machine.backlog:
                    data = self._machine.data_to_send()
                    self._room.unpark_all()
                    await self._carrier.send_all(data)
                if self._finishing:
                    await self._carrier.send_eof()
                    return
            except StreamReset:
                self.abort(Reason.CONNECTION_LOST)
                return
            finally:
                self._writing = False
            self._room.unpark_all()

    async def _flushed(self) -> None:
        """Returns once the carrier has taken every frame, or the session is over."""
        while (self._machine.backlog or self._writing) and not self.closed.is_set():
            self._work.set()
            await self._room.park()

    async def _keepalive(self) -> None:
        while True:
            await trio.sleep(PING_INTERVAL)
            asked = trio.current_time()
            for stream_id in [i for i, ends in self._closing.items() if ends <= asked]:
                self._streams[stream_id].reset()
            if asked - self._last_heard < PING_INTERVAL:
                continue
            with trio.move_on_after(PING_DEADLINE) as deadline:
                try:
                    await self.ping()
                except StreamReset:
                    return
            # Anything that came meanwhile is a sign of life as good as the answer.
            if deadline.cancelled_caught and self._last_heard < asked:
                self.abort(Reason.PING_TIMEOUT)

    def _end(self, reason: Reason) -> None:
        if self.closed.is_set():
            return
        self.closed_reason = reason
        self.closed.set()
        for stream in self._streams.values():
            stream.mark_reset(reason.value)
        self._streams.clear()
        self._closing.clear()
        for answered in self._pings.values():
            answered.set()
        self._room.unpark_all()
