"""Stored values: a version byte, then tagged fields, each `tag (1) length (2) bytes`.

A reader skips the tags that it does not know and can still show what is there; the version
changes only when the meaning of a tag does. Numbers are little-endian. The tags of all column
families stand in one list, so that a tag means the same everywhere.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

VERSION: Final = 2
"""1 was a JSON object, kept by peer id: `legacy.py` reads it."""
MAX_VALUE: Final = 16 * 1024  # bytes; the largest legal value has about 9 KiB


class Tag(IntEnum):
    """What a field holds."""

    CORE = 1  # of an address: the columns of `tables`, `CORE`
    WHO = 2  # text: who said so, an IP address, a peer id or a name
    FIRST_HEARD = 3  # u64, Unix seconds, like every time here
    PEER_ID = 4  # text
    RELAY_PORT = 5  # u16
    CAPACITY = 6  # u32: peers it is willing to relay for
    ROLE = 7  # u8: RelayRole of the wire contract
    EXPIRES = 8  # u64
    HEARD = 9  # u64
    HINT = 10  # text: through which relay a private peer is reached
    SEQ = 11  # u64: sequence number of a signed record
    ENVELOPE = 12  # bytes: the signed record as it came
    ADDRESSES = 13  # keys of 18 bytes, one after the other
    CONFIRMED = 14  # u64: when a connection proved it
    SOURCE = 15  # u8: rank of the source
    REASON = 16  # text
    TEXTS = 17  # multiaddrs that are no literal addresses, separated by line feeds
    WITHDRAWN = 18  # u64: when a newer record took the claim back


class CodecError(ValueError):
    """A stored value is not one that this version understands."""


_HEADER: Final = struct.Struct("<BH")


def encode(fields: Iterable[tuple[Tag, bytes]]) -> bytes:
    """The value that holds `fields`. CodecError if it would be larger than `MAX_VALUE`."""
    value = bytes([VERSION]) + b"".join([field(tag, payload) for tag, payload in fields])
    if len(value) > MAX_VALUE:
        raise CodecError(f"{len(value)} bytes, more than {MAX_VALUE}")
    return value


def field(tag: Tag, payload: bytes) -> bytes:
    """One field. CodecError if it is too large for any value."""
    if len(payload) > MAX_VALUE:
        raise CodecError(f"{tag.name} has {len(payload)} bytes")
    return _HEADER.pack(tag, len(payload)) + payload


def decode(value: bytes) -> dict[int, bytes]:
    """Tag → bytes, the last of each. Raises CodecError, and nothing else."""
    if not value or value[0] != VERSION:
        raise CodecError(f"format {value[:1].hex() or 'missing'}, not {VERSION:02x}")
    if len(value) > MAX_VALUE:
        raise CodecError(f"{len(value)} bytes, more than {MAX_VALUE}")
    fields: dict[int, bytes] = {}
    at, end = 1, len(value)
    while at < end:
        if end - at < _HEADER.size:
            raise CodecError("a field without a length")
        tag, size = _HEADER.unpack_from(value, at)
        at += _HEADER.size
        if end - at < size:
            raise CodecError(f"field {tag} is cut short")
        fields[tag] = value[at : at + size]
        at += size
    return fields


def number(fields: dict[int, bytes], tag: Tag, *, width: int = 8) -> int:
    """A number field; 0 if it is missing. CodecError if it has another width."""
    payload = fields.get(tag)
    if payload is None:
        return 0
    if len(payload) != width:
        raise CodecError(f"{tag.name} has {len(payload)} bytes, not {width}")
    return int.from_bytes(payload, "little")


def text(fields: dict[int, bytes], tag: Tag) -> str:
    """A text field; empty if it is missing. CodecError if it is not printable ASCII."""
    try:
        found = fields.get(tag, b"").decode("ascii")
    except UnicodeDecodeError:
        raise CodecError(f"{tag.name} is not ASCII") from None
    if not all(line.isprintable() for line in found.split("\n")):
        raise CodecError(f"{tag.name} is not printable")
    return found


def u64(value: int) -> bytes:
    return value.to_bytes(8, "little")
