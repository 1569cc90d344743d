"""The rows of a kaspad's own address database: keys and bincode values, decoded.

Layouts, by who wrote them (rusty-kaspa, `components/addressmanager/src/stores`; the relay-capable
fork's `utils/src/networking.rs`). Each begins with the one before it and adds fields, so a value
is of the one layout at whose end it ends; anything else is undecodable.

    stock        u64 connection_failed_count, ip (u32 variant, 4 or 16 octets), u16 port
    relay 1      + u64 services, Option<u16> relay_port
    relay 2      + Option<u32> relay_capacity, Option<u64> relay_ttl_ms, Option<u32> relay_role
    relay 3      + Option<String> libp2p_peer_id, Option<String> relay_circuit_hint
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Final

from appliance.addresses.keys import KEY_SIZE, MAPPED, pack_octets
from appliance.addresses.model import MAX_TEXT, RelayRole, check_peer_id

ADDRESSES: Final = 128
BANNED: Final = 129
LAYOUTS: Final = ("stock", "relay 1", "relay 2", "relay 3")
BAN_SECONDS: Final = 24 * 60 * 60  # rusty-kaspa, MAX_BANNED_TIME
RELAY_SERVICE: Final = 1  # wire contract: bit 0 of services

_MOST_TEXT: Final = 4096  # bytes of a string; more is no address's


class UndecodableError(ValueError):
    """Not a row that any known kaspad wrote."""


@dataclass(frozen=True, slots=True)
class KaspadAddress:
    """One address as a kaspad keeps it. Fields beyond `failures` are 0 or empty if unknown."""

    address: bytes  # a key of the book
    layout: str
    failures: int
    services: int = 0
    relay_port: int = 0
    relay_capacity: int = 0
    relay_ttl_ms: int = 0
    relay_role: RelayRole = RelayRole.UNSPECIFIED
    peer_id: str = ""
    hint: str = ""


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def at_end(self) -> bool:
        return self._at == len(self._data)

    def take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise UndecodableError("cut short")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, kind: str) -> int:
        form = struct.Struct(f"<{kind}")
        found: int = form.unpack(self.take(form.size))[0]
        return found

    def some(self) -> bool:
        """The tag of an Option."""
        tag = self.number("B")
        if tag > 1:
            raise UndecodableError(f"an option {tag}")
        return tag == 1

    def optional(self, kind: str) -> int:
        return self.number(kind) if self.some() else 0

    def text(self) -> str:
        if not self.some():
            return ""
        size = self.number("Q")
        if size > _MOST_TEXT:
            raise UndecodableError(f"a text of {size} bytes")
        try:
            return self.take(size).decode("utf-8")
        except UnicodeDecodeError:
            raise UndecodableError("a text that is not UTF-8") from None


def address_row(key: bytes, value: bytes) -> KaspadAddress:
    """An address row, its key without the prefix byte. Raises UndecodableError, nothing else."""
    if len(key) != KEY_SIZE:
        raise UndecodableError(f"a key of {len(key)} bytes")
    reader = _Reader(value)
    failures = reader.number("Q")
    variant = reader.number("I")
    if variant > 1:
        raise UndecodableError(f"an address of variant {variant}")
    ip, port = reader.take(16 if variant else 4), reader.number("H")
    wide = ip if variant else MAPPED + ip
    if wide != key[:16] or port != int.from_bytes(key[16:], "little"):
        raise UndecodableError("its key names another address")
    try:
        address = pack_octets(ip, port)
    except ValueError as error:
        raise UndecodableError(str(error)) from None
    found = KaspadAddress(address, LAYOUTS[0], failures)
    if reader.at_end():
        return found
    services, relay_port = reader.number("Q"), reader.optional("H")
    found = replace(found, layout=LAYOUTS[1], services=services, relay_port=relay_port)
    if reader.at_end():
        return found
    found = replace(
        found,
        layout=LAYOUTS[2],
        relay_capacity=reader.optional("I"),
        relay_ttl_ms=reader.optional("Q"),
        relay_role=_role(reader),
    )
    if reader.at_end():
        return found
    peer_id, hint = _usable(reader.text(), reader.text())
    if not reader.at_end():
        raise UndecodableError("it goes on behind its end")
    return replace(found, layout=LAYOUTS[3], peer_id=peer_id, hint=hint)


def _role(reader: _Reader) -> RelayRole:
    if not reader.some():
        return RelayRole.UNSPECIFIED
    variant = reader.number("I")  # of the Rust enum: Public, Private
    if variant > 1:
        raise UndecodableError(f"a role {variant}")
    return RelayRole.PRIVATE if variant else RelayRole.PUBLIC


def _usable(peer_id: str, hint: str) -> tuple[str, str]:
    """What strangers put there, if the book can keep it."""
    try:
        if peer_id:
            check_peer_id(peer_id)
    except ValueError:
        peer_id = ""
    good = hint.isascii() and hint.isprintable() and len(hint) <= MAX_TEXT
    return peer_id, hint if good else ""


def ban_row(key: bytes, value: bytes) -> tuple[bytes, int]:
    """16 octets of a banned IP, and since when in Unix seconds. Raises UndecodableError."""
    if len(key) != 16:
        raise UndecodableError(f"a key of {len(key)} bytes")
    if len(value) != 8:
        raise UndecodableError(f"a ban of {len(value)} bytes")
    return key, int.from_bytes(value, "little") // 1000
