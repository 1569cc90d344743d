"""The outline of a protobuf message, read before anything is parsed or allocated.

The parser would build an object per entry of a list before we could count them. This walk tells the
numbers and places of the fields; what we do not speak is then carried as bytes, unread.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from typing import Final, NamedTuple

from google.protobuf.descriptor import Descriptor

from appliance.errors import RemoteProtocolError
from appliance.reasons import Reason

VARINT: Final = 0
FIXED64: Final = 1
LENGTH_DELIMITED: Final = 2
FIXED32: Final = 5


class Field(NamedTuple):
    """One field on the wire: `data[start:end]` with its tag, `data[body:end]` without."""

    number: int
    wire_type: int
    start: int
    body: int
    end: int


def fields(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Field]:
    """The top-level fields of `data[start:end]`, in order.

    Raises RemoteProtocolError (MALFORMED_MESSAGE) where the bytes are not protobuf. Groups, which
    proto3 does not have, count as malformed.
    """
    stop = len(data) if end is None else end
    at = start
    while at < stop:
        tag, body = _varint(data, at, stop)
        number, wire_type = tag >> 3, tag & 7
        length = 0
        if wire_type == VARINT:
            _, after = _varint(data, body, stop)
        elif wire_type == LENGTH_DELIMITED:
            length, body = _varint(data, body, stop)
            after = body + length
        elif wire_type == FIXED64:
            after = body + 8
        elif wire_type == FIXED32:
            after = body + 4
        else:
            raise _malformed(f"wire type {wire_type}")
        if after > stop or not 0 < number < 1 << 29:
            raise _malformed(f"field {number} does not fit")
        yield Field(number, wire_type, at, body, after)
        at = after


def in_order(data: bytes, kind: Descriptor) -> bytes:
    """The same message of that kind, on every level of it the fields ordered by their numbers.

    So writes every encoder that knows them all; ours puts what it does not know at the end. Fields
    of one number keep their order. Raises RemoteProtocolError (MALFORMED_MESSAGE).
    """
    pieces = []
    for field in fields(data):
        piece = data[field.start : field.end]
        known = kind.fields_by_number.get(field.number)
        inner = None if known is None else known.message_type
        if inner is not None and field.wire_type == LENGTH_DELIMITED:
            piece = data[field.start : field.body] + in_order(data[field.body : field.end], inner)
        pieces.append((field.number, piece))
    pieces.sort(key=itemgetter(0))
    return b"".join(piece for _, piece in pieces)


def _varint(data: bytes, at: int, stop: int) -> tuple[int, int]:
    """The value at `at`, and where it ends. At most ten bytes, as protobuf's own parsers."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= stop:
            raise _malformed("cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _malformed("a varint of more than ten bytes")


def _malformed(what: str) -> RemoteProtocolError:
    return RemoteProtocolError(Reason.MALFORMED_MESSAGE, f"protobuf: {what}")
