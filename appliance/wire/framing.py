"""Length-prefixed messages as libp2p frames them: an unsigned varint, then that many bytes.

Source: multiformats unsigned-varint (at most 9 bytes; libp2p messages here never need more than
three), and the 4 KiB bound that the circuit and DCUtR specs put on a message.
"""

from __future__ import annotations

from typing import Final

from appliance.errors import RemoteProtocolError
from appliance.reasons import Reason

MAX_MESSAGE: Final = 4096
"""Bytes of one circuit or DCUtR message (specs: "larger than 4 KiB SHOULD be refused")."""

_MAX_VARINT: Final = 9


def encode_varint(value: int) -> bytes:
    """The shortest encoding of a value from 0 to 2**63 - 1."""
    if not 0 <= value < 1 << 63:
        raise ValueError(f"{value} does not fit an unsigned varint")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_varint(data: bytes | bytearray | memoryview, offset: int = 0) -> tuple[int, int] | None:
    """`(value, offset behind it)`, or None while bytes are missing.

    Raises RemoteProtocolError (malformed-message) when it is too long or not minimal.
    """
    value = 0
    for index in range(_MAX_VARINT):
        position = offset + index
        if position >= len(data):
            return None
        byte = data[position]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if byte == 0 and index > 0:
                raise RemoteProtocolError(Reason.MALFORMED_MESSAGE, "varint is not minimal")
            return value, position + 1
    raise RemoteProtocolError(Reason.MALFORMED_MESSAGE, "varint is longer than 9 bytes")


def frame(message: bytes) -> bytes:
    """`message` behind its length."""
    return encode_varint(len(message)) + message


class Deframer:
    """Takes bytes in any segmentation, gives whole messages; holds at most one of them.

    >>> d = Deframer(10); d.feed(bytes([3]) + b"ab"); d.next_message()
    >>> d.feed(b"cd"); d.next_message(), d.take_rest()
    (b'abc', b'd')
    """

    def __init__(self, max_message: int = MAX_MESSAGE) -> None:
        self._max = max_message
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        self._buffer += data

    def next_message(self) -> bytes | None:
        """The next message, or None while it is incomplete.

        Raises RemoteProtocolError as soon as the length says that the message is too large.
        """
        head = decode_varint(self._buffer)
        if head is None:
            return None
        length, start = head
        if length > self._max:
            raise RemoteProtocolError(
                Reason.MESSAGE_TOO_LARGE, f"{length} bytes announced, {self._max} allowed"
            )
        end = start + length
        if len(self._buffer) < end:
            return None
        message = bytes(self._buffer[start:end])
        del self._buffer[:end]
        return message

    def take_rest(self) -> bytes:
        """What came behind the last message: bytes that belong to whatever follows it."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest
