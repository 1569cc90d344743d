"""HTTP/2 with prior knowledge over one `ByteStream`, driven by trio; the protocol is `h2`'s.

Memory for a connection is bounded: received data by the flow-control window (it is handed back only
when read), bytes to be sent by `HIGH_WATER`, and what a peer makes us answer by `MAX_UNSENT`.
One task reads, one writes, and the reader never waits for the writer: two ends that both send can
not block each other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, ParamSpec

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import trio

from appliance.dataplane.streams import ByteStream
from appliance.errors import StreamReset
from appliance.node.http2_stream import Headers, Http2Stream
from appliance.units import KIB

P = ParamSpec("P")

WINDOW: Final = 512 * KIB
"""Unread bytes that a peer may have with us, per stream and per connection. Half of hyper's
default; at 80 ms of round trip still 6 MB/s, and 128 stalling peers take 64 MiB at most."""
MAX_STREAMS: Final = 4
"""Streams at once on one connection. kaspad opens exactly one."""
MAX_STREAMS_EVER: Final = 256
"""Streams in the life of a connection, since h2 remembers each."""
HIGH_WATER: Final = 64 * KIB
MAX_UNSENT: Final = 512 * KIB
MAX_HEADER_BYTES: Final = 16 * KIB  # hyper's default
IDLE_TIMEOUT: Final = 10.0
"""Seconds that a client may hold a connection without a stream."""
LINGER: Final = 1.0
"""Seconds to let the peer read our last words before the socket goes."""


class Http2Connection:
    """One connection over `stream`, which it owns. `run` is to be called once."""

    def __init__(self, stream: ByteStream, *, client: bool) -> None:
        self.lost: str | None = None
        """Why nothing can be received or sent any more; None while it can."""
        self._stream = stream
        self._client = client
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=client, header_encoding=None)
        )
        self._streams: dict[int, Http2Stream] = {}
        self._streams_ever = 0
        self._unsent = bytearray()
        self._writable = trio.lowlevel.ParkingLot()  # the writer waits: bytes to send, or closing
        self._room = trio.lowlevel.ParkingLot()  # senders wait: buffer or window
        self._quiet = trio.lowlevel.ParkingLot()  # the idle watch waits: a stream came or went
        self._said_all = trio.Event()
        self._closing = False  # our GOAWAY is out, or nothing more is to be said
        self._draining = False  # new streams are refused
        self._handler: Callable[[Http2Stream], Awaitable[None]] | None = None
        self._start()

    def _start(self) -> None:
        codes = h2.settings.SettingCodes
        settings = {codes.INITIAL_WINDOW_SIZE: WINDOW, codes.MAX_HEADER_LIST_SIZE: MAX_HEADER_BYTES}
        if self._client:
            settings[codes.ENABLE_PUSH] = 0
        else:
            settings[codes.MAX_CONCURRENT_STREAMS] = MAX_STREAMS
        self._h2.local_settings = h2.settings.Settings(client=self._client, initial_values=settings)
        self._h2.decoder.max_header_list_size = MAX_HEADER_BYTES
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(WINDOW - 65535)
        self._flush()

    async def run(self, handler: Callable[[Http2Stream], Awaitable[None]] | None = None) -> None:
        """Carry the connection until it ends; a server calls `handler` for each stream.

        Returns normally however the connection ends. After Cancelled the socket is reset.
        """
        self._handler = handler
        try:
            async with trio.open_nursery() as carriers:
                carriers.start_soon(self._write)
                carriers.start_soon(self._linger)
                async with trio.open_nursery() as handlers:
                    if not self._client:
                        handlers.start_soon(self._watch_idle)
                    await self._read(handlers)
                self._end()
                with trio.move_on_after(LINGER):
                    await self._said_all.wait()
                carriers.cancel_scope.cancel()
            await self._stream.aclose()
        finally:
            self._lose("connection closed")
            self._stream.reset()

    def open_stream(self, headers: Headers) -> Http2Stream:
        """A client's new stream. Raises StreamReset if the connection cannot carry one."""
        if self.lost is not None:
            raise StreamReset(self.lost)
        stream = Http2Stream(self, self._h2.get_next_available_stream_id())
        self._streams[stream.stream_id] = stream
        self.send_headers(stream, headers)
        return stream

    def close(self) -> None:
        """Say GOAWAY, send what is waiting, end the sending side; `run` returns soon after."""
        if not self._closing and self.lost is None:
            self._h2.close_connection()
        self._end()

    def close_when_idle(self) -> None:
        """Take no more streams, and `close` as soon as there is none."""
        self._draining = True
        if not self._streams:
            self.close()

    # --- for Http2Stream

    def send_headers(self, stream: Http2Stream, headers: Headers, *, end: bool = False) -> None:
        self._guard(self._h2.send_headers, stream.stream_id, list(headers), end)
        stream.done |= end

    async def send_data(self, stream: Http2Stream, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        view = memoryview(data)
        while view:
            stream.raise_if_broken()
            if stream.done:
                raise StreamReset("our direction has ended")
            size = 0
            if len(self._unsent) < HIGH_WATER:
                window = self._h2.local_flow_control_window(stream.stream_id)
                size = min(window, self._h2.max_outbound_frame_size, HIGH_WATER, len(view))
            if size <= 0:
                await self._room.park()
                continue
            piece = bytes(view[:size])
            self._guard(self._h2.send_data, stream.stream_id, piece)
            view = view[size:]

    def send_end(self, stream: Http2Stream) -> None:
        self._guard(self._h2.end_stream, stream.stream_id)
        stream.done = True

    def reset_stream(self, stream: Http2Stream, code: h2.errors.ErrorCodes) -> None:
        if not stream.broken and not (stream.done and stream.ended):
            self._guard(self._h2.reset_stream, stream.stream_id, code)
        stream.done = True
        if stream.reset_code is None:
            stream.reset_code = code
        stream.changed.unpark_all()
        self._room.unpark_all()

    def give_credit(self, stream_id: int, credit: int) -> None:
        if credit and self.lost is None:
            self._h2.acknowledge_received_data(credit, stream_id)
            self._flush()

    # --- tasks

    async def _read(self, handlers: trio.Nursery) -> None:
        try:
            while data := await self._stream.receive_some():
                if self._closing:
                    continue  # h2 hears nothing after its GOAWAY; we read on to let the peer finish
                for event in self._h2.receive_data(data):
                    self._on_event(event, handlers)
                self._flush()
                if len(self._unsent) > MAX_UNSENT:
                    self._h2.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
                    self._lose("the peer asks faster than it reads")
                    self._stream.reset()
                    return
            self._lose("the peer closed the connection")
        except h2.exceptions.ProtocolError as error:
            # h2 has prepared the GOAWAY that says why. What the peer has sent meanwhile is read:
            # closing a socket with unread bytes resets it, and may take the GOAWAY with it.
            self._lose(f"HTTP/2: {type(error).__name__}: {error}")
            self._end()
            await self._discard_input()
        except StreamReset as error:
            self._lose(str(error))

    async def _discard_input(self) -> None:
        try:
            while await self._stream.receive_some():
                pass
        except StreamReset:
            pass

    async def _write(self) -> None:
        try:
            while self._unsent or not self._closing:
                if not self._unsent:
                    await self._writable.park()
                    continue
                batch, self._unsent = self._unsent, bytearray()
                self._room.unpark_all()
                await self._stream.send_all(batch)
            await self._stream.send_eof()
        except StreamReset as error:
            self._lose(str(error))
            self._stream.reset()
        self._said_all.set()

    async def _linger(self) -> None:
        """The peer has this long to read our last words and to close its side."""
        await self._said_all.wait()
        await trio.sleep(LINGER)
        self._stream.reset()

    async def _watch_idle(self) -> None:
        while self.lost is None:
            if self._streams:
                await self._quiet.park()
                continue
            with trio.move_on_after(IDLE_TIMEOUT) as waiting:
                await self._quiet.park()
            if waiting.cancelled_caught:
                self.close()
                return

    async def _handle(self, stream: Http2Stream) -> None:
        assert self._handler is not None
        try:
            await self._handler(stream)
        except StreamReset:
            pass  # the handler had nothing more to say about it
        finally:
            self.forget(stream)

    def forget(self, stream: Http2Stream) -> None:
        """The stream's user is through with it."""
        if not (stream.done and stream.ended):
            # A server that has answered all it will asks the client to stop (RFC 9113, 8.1).
            codes = h2.errors.ErrorCodes
            stream.reset(codes.NO_ERROR if stream.done and not self._client else codes.CANCEL)
        stream.discard()
        self._streams.pop(stream.stream_id, None)
        self._quiet.unpark_all()
        if self._draining and not self._streams:
            self.close()

    # --- below

    def _on_event(self, event: h2.events.Event, handlers: trio.Nursery) -> None:
        match event:
            case h2.events.RequestReceived():
                self._on_request(event, handlers)
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._room.unpark_all()
            case h2.events.ConnectionTerminated():
                # h2 takes a GOAWAY for the end of everything; what came before it is delivered.
                self._lose(f"the peer said GOAWAY, HTTP/2 code {int(event.error_code or 0)}")
                self._end()
            case _:
                stream = self._streams.get(getattr(event, "stream_id", 0) or 0)
                if stream is not None:
                    self._on_stream_event(event, stream)
                elif isinstance(event, h2.events.DataReceived):
                    self.give_credit(event.stream_id, event.flow_controlled_length)

    def _on_stream_event(self, event: h2.events.Event, stream: Http2Stream) -> None:
        match event:
            case h2.events.DataReceived():
                if event.data:
                    stream.deliver(event.data, event.flow_controlled_length)
                else:
                    self.give_credit(stream.stream_id, event.flow_controlled_length)
            case h2.events.ResponseReceived():
                stream.headers = tuple(event.headers)
            case h2.events.TrailersReceived():
                stream.trailers = tuple(event.headers)
            case h2.events.StreamEnded():
                stream.ended = True
            case h2.events.StreamReset():
                if not stream.ended:
                    stream.reset_code = int(event.error_code)
                stream.done = True
                self._room.unpark_all()
            case _:
                return
        stream.changed.unpark_all()

    def _on_request(self, event: h2.events.RequestReceived, handlers: trio.Nursery) -> None:
        self._streams_ever += 1
        if self._streams_ever > MAX_STREAMS_EVER:
            self.close()
            return
        if self._draining or len(self._streams) >= MAX_STREAMS:
            # h2 counts open streams; a handler may still be busy with one that is closed.
            self._h2.reset_stream(event.stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
            return
        stream = Http2Stream(self, event.stream_id)
        stream.headers = tuple(event.headers)
        self._streams[stream.stream_id] = stream
        self._quiet.unpark_all()
        handlers.start_soon(self._handle, stream)

    def _guard(self, act: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Do something with h2 that the peer may have made illegal meanwhile."""
        try:
            act(*args, **kwargs)
        except h2.exceptions.ProtocolError as error:
            raise StreamReset(f"HTTP/2: {error}") from None
        self._flush()

    def _end(self) -> None:
        """Nothing more will be said after what waits to be sent."""
        self._flush()
        self._closing = True
        self._writable.unpark_all()

    def _flush(self) -> None:
        self._unsent += self._h2.data_to_send()
        if self._unsent:
            self._writable.unpark_all()

    def _lose(self, why: str) -> None:
        if self.lost is None:
            self.lost = why
        for stream in self._streams.values():
            stream.changed.unpark_all()
        self._room.unpark_all()
        self._quiet.unpark_all()
