"""gRPC's message framing, without I/O: one flag byte, four bytes of big-endian length, the message.

Source: grpc, doc/PROTOCOL-HTTP2.md, "Length-Prefixed-Message". kaspad's tonic compresses every
message with gzip towards a peer that lists it in `grpc-accept-encoding`, and always as a client.
"""

from __future__ import annotations

import zlib
from typing import Final

from appliance.errors import RemoteProtocolError
from appliance.reasons import Reason
from appliance.units import MIB

PREFIX_BYTES: Final = 5
# The largest thing a stock kaspad sends unasked: 131,072 transaction ids of 36 bytes on the wire
# (rusty-kaspa, protocol/flows/src/v7/txrelay, MAX_INV_PER_TX_INV_MSG): 4.5 MiB.
DEFAULT_MAX_MESSAGE: Final = 6 * MIB
# zlib's window bits for a gzip header and trailer.
_GZIP_WINDOW = 31


def encode(message: bytes) -> bytes:
    """`message` as an uncompressed frame."""
    return b"\0" + len(message).to_bytes(4, "big") + message


class FrameDecoder:
    """Cuts a byte stream into messages.

    Holds at most one incomplete message plus what was fed last. `gzip` says whether the headers
    announced `grpc-encoding: gzip`; without it, a set compression flag is a fault.
    """

    def __init__(self, *, max_message: int = DEFAULT_MAX_MESSAGE, gzip: bool = False) -> None:
        self._buffer = bytearray()
        self._max = max_message
        self._gzip = gzip

    def feed(self, data: bytes) -> None:
        """Add received bytes; then call `next_message` until it returns None."""
        self._buffer += data

    def next_message(self) -> bytes | None:
        """The next whole message, or None if more bytes are needed.

        Raises RemoteProtocolError: MESSAGE_TOO_LARGE, before the message is buffered or unpacked
        beyond the bound; MALFORMED_MESSAGE for a wrong flag or bad gzip data.
        """
        if len(self._buffer) < PREFIX_BYTES:
            return None
        flag = self._buffer[0]
        size = int.from_bytes(self._buffer[1:PREFIX_BYTES], "big")
        if flag > 1 or (flag == 1 and not self._gzip):
            raise RemoteProtocolError(Reason.MALFORMED_MESSAGE, f"gRPC compression flag {flag}")
        if size > self._max:
            raise RemoteProtocolError(
                Reason.MESSAGE_TOO_LARGE, f"a gRPC message of {size} bytes, at most {self._max}"
            )
        if len(self._buffer) < PREFIX_BYTES + size:
            return None
        message = bytes(memoryview(self._buffer)[PREFIX_BYTES : PREFIX_BYTES + size])
        del self._buffer[: PREFIX_BYTES + size]
        return self._unpack(message) if flag else message

    def end(self) -> None:
        """The stream ended. Raises RemoteProtocolError if it did so inside a message."""
        if self._buffer:
            raise RemoteProtocolError(
                Reason.MALFORMED_MESSAGE, "the stream ended inside a gRPC message"
            )

    def _unpack(self, packed: bytes) -> bytes:
        unpacker = zlib.decompressobj(_GZIP_WINDOW)
        try:
            message = unpacker.decompress(packed, self._max + 1)
        except zlib.error as error:
            raise RemoteProtocolError(Reason.MALFORMED_MESSAGE, f"gzip: {error}") from None
        if len(message) > self._max:
            raise RemoteProtocolError(
                Reason.MESSAGE_TOO_LARGE, f"a gRPC message unpacks to more than {self._max} bytes"
            )
        if not unpacker.eof or unpacker.unused_data:
            raise RemoteProtocolError(
                Reason.MALFORMED_MESSAGE, "gzip: cut off, or followed by other bytes"
            )
        return message
