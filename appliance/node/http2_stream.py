"""One HTTP/2 stream, as its user sees it; `node.http2` carries it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

import h2.errors
import trio

from appliance.errors import StreamReset

Headers = Sequence[tuple[bytes, bytes]]


class Carrier(Protocol):
    """What a stream asks of the connection that carries it."""

    lost: str | None

    def send_headers(self, stream: Http2Stream, headers: Headers, *, end: bool = False) -> None: ...
    async def send_data(self, stream: Http2Stream, data: bytes) -> None: ...
    def send_end(self, stream: Http2Stream) -> None: ...
    def reset_stream(self, stream: Http2Stream, code: h2.errors.ErrorCodes) -> None: ...
    def give_credit(self, stream_id: int, credit: int) -> None: ...


class Http2Stream:
    """One stream. One task may receive while another sends."""

    def __init__(self, connection: Carrier, stream_id: int) -> None:
        self.stream_id = stream_id
        self.headers: Headers | None = None  # of the peer
        self.trailers: Headers | None = None
        self.ended = False  # the peer sent its last byte
        self.done = False  # we did
        self.reset_code: int | None = None
        self.changed = trio.lowlevel.ParkingLot()
        self._connection = connection
        self._inbox: deque[tuple[bytes, int]] = deque()

    async def wait_headers(self) -> Headers:
        """The peer's headers. Raises StreamReset."""
        while self.headers is None:
            self.raise_if_broken()
            await self.changed.park()
        return self.headers

    async def receive_data(self) -> bytes:
        """Some bytes, b"" at the end. Nothing is lost on Cancelled. Raises StreamReset."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._inbox:
            if self.ended:
                return b""
            self.raise_if_broken()
            await self.changed.park()
        data, credit = self._inbox.popleft()
        self._connection.give_credit(self.stream_id, credit)
        return data

    async def send_data(self, data: bytes) -> None:
        """Returns once all is accepted for sending. Raises StreamReset."""
        await self._connection.send_data(self, data)

    def send_headers(self, headers: Headers, *, end: bool = False) -> None:
        """Never waits. Raises StreamReset."""
        self.raise_if_broken()
        self._connection.send_headers(self, headers, end=end)

    def send_end(self) -> None:
        """End our direction without trailers. Does nothing if it has ended."""
        if not self.done and not self.broken:
            self._connection.send_end(self)

    def reset(self, code: h2.errors.ErrorCodes = h2.errors.ErrorCodes.CANCEL) -> None:
        """End both directions at once. Never raises."""
        self._connection.reset_stream(self, code)

    @property
    def broken(self) -> bool:
        return self.reset_code is not None or self._connection.lost is not None

    def raise_if_broken(self) -> None:
        """Raises StreamReset if the stream or its connection is no more."""
        if self.reset_code is not None:
            raise StreamReset(f"stream reset, HTTP/2 code {self.reset_code}")
        if self._connection.lost is not None:
            raise StreamReset(self._connection.lost)

    def deliver(self, data: bytes, credit: int) -> None:
        """The connection's reader hands over received bytes worth `credit` of the window."""
        self._inbox.append((data, credit))
        self.changed.unpark_all()

    def discard(self) -> None:
        """Forget unread bytes; the connection gets their part of its window back."""
        while self._inbox:
            self._connection.give_credit(self.stream_id, self._inbox.popleft()[1])
