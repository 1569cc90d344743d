"""py-libp2p's own data plane behind our interface, to compare ours with it (docs/adr/0007).

`Host(…, stack=STOCK)`, in benchmarks and tests only: no part of the appliance imports this. What
is wrong with the library's channel and muxer is left as it is; this only translates.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final, Protocol

import trio

from appliance.bridge.library import lean
from appliance.bridge.negotiate import NegotiatedStream
from appliance.bridge.stack import Stack
from appliance.bridge.stock_channel import READ, Raw, StockChannel, StockNoise, Waiting
from appliance.dataplane.plane import Plane
from appliance.dataplane.streams import ByteStream, Carrier
from appliance.errors import Fault, StreamReset
from appliance.reasons import Reason

with lean():
    from libp2p.exceptions import BaseLibp2pError
    from libp2p.peer.id import ID
    from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamEOF
    from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream

_NOBODY: Final = ID(b"")


class _Connection(Protocol):
    """What the library calls a secured connection, as far as its muxer uses it."""

    async def read(self, n: int | None = None) -> bytes: ...

    async def write(self, data: bytes) -> None: ...

    async def close(self) -> None: ...


class _Buffered(Raw):
    """A byte stream as the library's muxer wants it: `read` gives exactly what was asked for."""

    def __init__(self, stream: ByteStream) -> None:
        super().__init__(stream)
        self._buffer = bytearray()

    async def read(self, n: int | None = None) -> bytes:
        size = n or READ
        while len(self._buffer) < size:
            if not (data := await super().read(READ)):
                break
            self._buffer += data
        out = bytes(self._buffer[:size])
        del self._buffer[:size]
        return out


class _Secured:
    """What lies under the library's muxer: `rest` came already. Says when it hears something."""

    def __init__(self, below: _Connection, rest: bytes, heard: Callable[[], None]) -> None:
        self._below = below
        self._rest = rest
        self._heard = heard

    async def read(self, n: int | None = None) -> bytes:
        size = n or READ
        data, self._rest = self._rest[:size], self._rest[size:]
        if len(data) < size:
            data += await self._below.read(size - len(data))
        if data:
            self._heard()
        return data

    async def write(self, data: bytes) -> None:
        await self._below.write(data)

    async def close(self) -> None:
        await self._below.close()


class StockStream(Waiting):
    """A stream of the library's muxer, once it is open.

    After `Cancelled` in `receive_some` bytes may be lost: the library takes them, and only then
    waits for room to tell the peer.
    """

    def __init__(self, session: StockSession, stream: YamuxStream | None = None) -> None:
        self._session = session
        self._stream = stream
        self._settled = trio.Event()
        if stream is not None:
            self._settled.set()

    async def open(self, muxer: Yamux) -> None:
        """The library waits for its turn before it announces a stream, and for room behind it."""
        try:
            with suppress(BaseLibp2pError):  # whoever waits finds no stream
                self._stream = await muxer.open_stream()
        finally:
            self._settled.set()

    def never_opens(self) -> None:
        """The connection is over."""
        self._settled.set()

    async def _opened(self) -> YamuxStream:
        await self._settled.wait()
        if self._stream is None:
            raise StreamReset(self._session.closed_detail or "the stream could not be opened")
        return self._stream

    async def receive_some(self, max_bytes: int = READ) -> bytes:
        stream = await self._opened()
        try:
            data: bytes = await stream.read(max_bytes)
        except MuxedStreamEOF:
            return b""
        except BaseLibp2pError as error:
            raise StreamReset(str(error)) from error
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._try((await self._opened()).write(bytes(data)))

    async def send_eof(self) -> None:
        await self._try((await self._opened()).close())

    def reset(self) -> None:
        self._session.later(self._reset)

    async def aclose(self) -> None:
        if self._settled.is_set() and self._stream is None:
            return
        with suppress(StreamReset):
            await self.send_eof()

    async def _reset(self, _: Yamux) -> None:
        with suppress(StreamReset):
            await self._try((await self._opened()).reset())

    @staticmethod
    async def _try(operation: Awaitable[None]) -> None:
        try:
            await operation
        except BaseLibp2pError as error:
            raise StreamReset(str(error)) from error


class StockSession:
    """The library's muxer as a `MuxedConn`. It has no limit on streams and no shared `plane`."""

    def __init__(
        self,
        carrier: Carrier,
        *,
        client: bool,
        max_inbound: int = 64,
        plane: Plane | None = None,
    ) -> None:
        self._carrier = carrier
        self._client = client
        self._muxer: Yamux | None = None
        self._scope = trio.CancelScope()
        self._goodbye = Reason.CONNECTION_LOST
        self._nursery: trio.Nursery | None = None
        # What was asked for before the muxer ran.
        self._early: list[Callable[[Yamux], Awaitable[None]]] = []
        self._opening: list[StockStream] = []
        self._heard = trio.Event()
        self._first_heard = 0.0
        self.closed = trio.Event()
        self.released = trio.Event()
        self.closed_reason: Reason | None = None
        self.closed_detail = ""
        self.peer_going_away = False
        self.streams_refused = 0

    @property
    def open_streams(self) -> int:
        return 0 if self._muxer is None else len(self._muxer.streams)

    async def first_byte(self) -> float:
        await self._heard.wait()
        return self._first_heard

    # --- life

    async def run(self, on_stream: Callable[[Carrier], None]) -> Reason:
        try:
            with self._scope:
                self._muxer = await self._agreed()
                await self._serve(self._muxer, on_stream)
        except (StreamReset, Fault) as error:
            self.closed_detail = str(error)
        finally:
            self._end(self._goodbye)
            self._nursery = None
            self._carrier.reset()
            if self._muxer is not None and not self._muxer.is_closed:
                with trio.CancelScope(shield=True):
                    # Nothing goes out any more, but whoever waits on a stream wakes up.
                    await self._muxer.close()
            self.released.set()
        assert self.closed_reason is not None
        return self.closed_reason

    async def _agreed(self) -> Yamux:
        """The muxer, over what both ends agreed to speak it on."""
        carrier: ByteStream = self._carrier
        rest = b""
        if isinstance(carrier, NegotiatedStream):
            await carrier.confirmed()
            carrier, rest = carrier.unwrapped()
        below: _Connection = _Buffered(carrier)
        if isinstance(carrier, StockChannel):
            below, rest = carrier.session, rest + carrier.rest
        return Yamux(_Secured(below, rest, self._hear), _NOBODY, is_initiator=self._client)

    async def _serve(self, muxer: Yamux, on_stream: Callable[[Carrier], None]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(muxer.start)
            await muxer.event_started.wait()
            self._nursery = nursery
            for job in self._early:
                nursery.start_soon(job, muxer)
            try:
                while True:
                    on_stream(StockStream(self, await muxer.accept_stream()))
            except MuxedConnUnavailable:
                nursery.cancel_scope.cancel()

    def later(self, job: Callable[[Yamux], Awaitable[None]]) -> None:
        """Run it beside the muxer, unless the connection is over."""
        if self.closed.is_set():
            return
        if self._nursery is None or self._muxer is None:
            self._early.append(job)
        else:
            self._nursery.start_soon(job, self._muxer)

    def abort(self, reason: Reason) -> None:
        self._end(reason)
        self._scope.cancel()

    async def close(self, reason: Reason, *, patience: float = 1.0) -> None:
        try:
            with trio.move_on_after(patience):
                if self._muxer is not None and not self.closed.is_set():
                    self._goodbye = reason
                    await self._muxer.close()
        finally:
            self.abort(reason)

    def _hear(self) -> None:
        if not self._heard.is_set():
            self._first_heard = trio.current_time()
            self._heard.set()

    def _end(self, reason: Reason) -> None:
        if self.closed.is_set():
            return
        self.closed_reason = reason
        self.closed.set()
        for stream in self._opening:
            stream.never_opens()

    # --- streams

    def open_stream(self) -> StockStream:
        if self.closed.is_set() or (
            self._muxer is not None and self._muxer.event_shutting_down.is_set()
        ):
            raise StreamReset(self.closed_detail or "the connection is closing")
        stream = StockStream(self)
        self._opening.append(stream)
        self.later(partial(self._open, stream))
        return stream

    async def _open(self, stream: StockStream, muxer: Yamux) -> None:
        await stream.open(muxer)
        self._opening.remove(stream)

    async def ping(self) -> float:
        raise NotImplementedError("the library pings only when it likes to")


STOCK: Final = Stack(StockNoise, StockSession)
