"""The multiaddrs that we speak, in binary: IP, TCP, a peer id, a circuit. Anything else is skipped.

Source: multiformats/multiaddr protocols.csv. The general library accepts truncated addresses,
which is not good enough for bytes from strangers.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

from appliance.errors import RemoteProtocolError
from appliance.network import Endpoint
from appliance.wire.framing import decode_varint, encode_varint

_IP4: Final = 4
_TCP: Final = 6
_IP6: Final = 41
_P2P_CIRCUIT: Final = 290
_P2P: Final = 421
_MAX_PEER_ID: Final = 64
"""Bytes; ed25519 ids have 38, SHA-256 ones 34."""


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """`/ip4|ip6/…/tcp/…`, with the peer id behind it if there was one."""

    endpoint: Endpoint
    peer_id: bytes | None = None


def encode(endpoint: Endpoint, peer_id: bytes | None = None) -> bytes:
    """Binary multiaddr of a TCP endpoint, optionally followed by `/p2p/ID`."""
    ip = ipaddress.ip_address(endpoint.host)
    out = bytes([_IP4 if ip.version == 4 else _IP6]) + ip.packed
    out += bytes([_TCP]) + endpoint.port.to_bytes(2, "big")
    if peer_id is not None:
        out += encode_varint(_P2P) + encode_varint(len(peer_id)) + peer_id
    return out


def decode(data: bytes) -> TcpAddress | None:
    """None for anything that is not a direct TCP address: other transports, circuits, garbage."""
    if len(data) < 8 or data[0] not in (_IP4, _IP6):
        return None
    size = 4 if data[0] == _IP4 else 16
    end = 1 + size + 3
    if len(data) < end or data[1 + size] != _TCP:
        return None
    ip = ipaddress.ip_address(data[1 : 1 + size])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    endpoint = Endpoint(str(ip), int.from_bytes(data[end - 2 : end], "big"))
    if end == len(data):
        return TcpAddress(endpoint)
    peer_id = _trailing_peer_id(data, end)
    return None if peer_id is None else TcpAddress(endpoint, peer_id)


def _trailing_peer_id(data: bytes, offset: int) -> bytes | None:
    try:
        code = decode_varint(data, offset)
        if code is None or code[0] != _P2P:
            return None
        length = decode_varint(data, code[1])
    except RemoteProtocolError:
        return None
    if length is None or not 0 < length[0] <= _MAX_PEER_ID or length[1] + length[0] != len(data):
        return None
    return data[length[1] :]
