"""What carries bytes: a `ByteStream` for whoever waits, a `Carrier` for whoever drives it."""

from __future__ import annotations

from typing import Final, Protocol

from appliance.units import KIB

BATCH: Final = 256 * KIB
"""Bytes taken from a carrier, and given to one, at a time: four of the largest noise messages."""


class ByteStream(Protocol):
    """A bidirectional byte stream with half-close and reset: a muxed stream or a TCP socket.

    One task may receive while another sends; two tasks may not do the same at once
    (`trio.BusyResourceError`). After `Cancelled` in `receive_some` nothing is lost; after
    `Cancelled` in `send_all` an unknown part was sent, so only `reset` makes sense.
    """

    async def receive_some(self, max_bytes: int = 65536) -> bytes:
        """At most `max_bytes`; `b""` at the peer's end of file. Raises `StreamReset`."""
        ...

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Returns once the bytes are accepted below, within a bound. Raises `StreamReset`."""
        ...

    async def send_eof(self) -> None:
        """Half-close: the peer reads to the end; we may go on receiving. Raises `StreamReset`."""
        ...

    def reset(self) -> None:
        """End both directions at once, telling the peer. Never blocks, never raises, idempotent."""
        ...

    async def aclose(self) -> None:
        """Close: half-close if that did not happen yet, and stop receiving. Idempotent."""
        ...


class Carrier(ByteStream, Protocol):
    """A byte stream that can also be driven without waiting, by one task and in large batches.

    Whoever drives it uses nothing else of it, but for `send_eof` and `reset` at the end.
    """

    @property
    def sending(self) -> bool:
        """Whether bytes that were accepted still wait for room below."""
        ...

    def receive_nowait(self, into: memoryview) -> int:
        """Bytes received into the front of `into`, which has room for a `BATCH`; 0 at the end.

        Raises trio.WouldBlock if there is nothing yet, and StreamReset.
        """
        ...

    async def wait_receivable(self) -> None:
        """Until `receive_nowait` is worth a try. Cancelling it loses nothing."""
        ...

    def send_nowait(self, data: memoryview) -> None:
        """Accept `data`, at most a `BATCH`, while not `sending`; what finds no room is kept.

        Raises StreamReset.
        """
        ...

    async def drain(self) -> None:
        """Until not `sending`. Raises StreamReset. Cancelling it loses nothing."""
        ...
