"""yamux frames, and what those of a peer come to.

Source: hashicorp/yamux spec.md. A frame is a header of 12 bytes, big-endian: version (0), kind,
flags, stream id and length; a data frame has as many bytes of payload behind it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

HEADER: Final = struct.Struct("!BBHII")
HEADER_SIZE: Final = HEADER.size
LENGTH: Final = struct.Struct("!I")
"""The last field of a header."""

SYN, ACK, FIN, RST = 0x1, 0x2, 0x4, 0x8


class Kind(IntEnum):
    """The frame types."""

    DATA = 0
    WINDOW_UPDATE = 1
    PING = 2
    GO_AWAY = 3


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The peer opened a stream and it was within the limit."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class StreamRefused:
    """The peer opened one stream too many; it was reset."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class DataReceived:
    """Payload of a stream, as it came; `credit` must be called as it is consumed.

    `data` is a part of what `receive` was given, and good for as long as that is.
    """

    stream_id: int
    data: memoryview


@dataclass(frozen=True, slots=True)
class EofReceived:
    """The peer will send no more on this stream."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class ResetReceived:
    """The stream is gone in both directions."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class WindowOpened:
    """We may send again on this stream."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class PongReceived:
    """The answer to our ping of this value."""

    value: int


@dataclass(frozen=True, slots=True)
class GoAwayReceived:
    """The peer takes no new streams: 0 normal, 1 protocol error, 2 internal error."""

    code: int


Event = (
    StreamOpened
    | StreamRefused
    | DataReceived
    | EofReceived
    | ResetReceived
    | WindowOpened
    | PongReceived
    | GoAwayReceived
)
