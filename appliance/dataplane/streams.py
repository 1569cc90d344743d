"""What a byte stream is to the rest of the house, whoever carries it."""

from __future__ import annotations

from typing import Protocol


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
