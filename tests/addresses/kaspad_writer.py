"""A kaspad's address database, written as the wire contract and rusty-kaspa's source have it."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from rocksdict import DBCompressionType, Options, Rdict


def key(ip: str, port: int) -> bytes:
    """An address row's key: prefix byte, IPv6(-mapped) octets, little-endian port."""
    address = ip_address(ip)
    mapped = (
        bytes(10) + b"\xff\xff" + address.packed
        if isinstance(address, IPv4Address)
        else address.packed
    )
    return bytes([128]) + mapped + struct.pack("<H", port)


def stock(ip: str, port: int, failures: int = 0) -> bytes:
    """bincode of `{u64, NetAddress { ip, port }}`."""
    octets = ip_address(ip).packed
    return struct.pack("<QI", failures, len(octets) == 16) + octets + struct.pack("<H", port)


def option(form: str, value: int | None) -> bytes:
    return b"\0" if value is None else b"\1" + struct.pack(f"<{form}", value)


def text(value: str | None) -> bytes:
    if value is None:
        return b"\0"
    return b"\1" + struct.pack("<Q", len(value.encode())) + value.encode()


def relay_capable(
    ip: str,
    port: int,
    failures: int = 0,
    *,
    layout: int = 3,
    services: int = 1,
    relay_port: int | None = 16112,
    capacity: int | None = None,
    ttl_ms: int | None = None,
    role: int | None = None,
    peer_id: str | None = None,
    hint: str | None = None,
) -> bytes:
    """The same with the fields of the relay-capable kaspad, as its version `layout` had them."""
    value = stock(ip, port, failures) + struct.pack("<Q", services) + option("H", relay_port)
    if layout >= 2:
        value += option("I", capacity) + option("Q", ttl_ms) + option("I", role)
    if layout >= 3:
        value += text(peer_id) + text(hint)
    return value


def ban_key(ip: str) -> bytes:
    return bytes([129]) + key(ip, 1)[1:17]


def write(directory: Path, rows: Iterable[tuple[bytes, bytes]]) -> Rdict:
    """Make the database; it stays open, as in a running kaspad."""
    directory.mkdir(parents=True)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_compression_type(DBCompressionType.snappy())  # RocksDB's, hence kaspad's, default
    database = Rdict(str(directory), options)
    for row_key, value in rows:
        database[row_key] = value
    # Rows of others in the same database: kaspad's consensus keeps its pointers there.
    database[bytes([124, 1])] = b"consensus"
    database[bytes([200])] = b"something later"
    return database
