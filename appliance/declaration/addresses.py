"""Relay and peer addresses: a strict parser for the few multiaddr shapes a declaration may hold.

No libp2p here: importing it costs 85 MB and half a second, and `validate` must stay light.
Errors are `ValueError`s whose text completes a sentence that begins with the address.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

from appliance.network import Endpoint

_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

# libp2p specs, peer-ids/peer-ids.md: a peer id is the multihash of the public key. Keys of at most
# 42 encoded bytes (ed25519: 36, secp256k1: 37) are inlined (identity, 0x00), others are SHA-256
# (0x12, 32 bytes).
_IDENTITY: Final = 0x00
_SHA2_256: Final = 0x12
_MAX_INLINE: Final = 42

PEER_ID_PATTERN: Final = f"[{_BASE58}]{{10,60}}"
"""The shape of a peer id for editors; `peer_id` decides."""


@dataclass(frozen=True, slots=True, order=True)
class RelayAddress:
    """A relay that we can dial; `str()` gives `/ip4|ip6/IP/tcp/PORT/p2p/PEERID`."""

    endpoint: Endpoint
    peer_id: str

    @classmethod
    def parse(cls, text: str) -> RelayAddress:
        """Raises ValueError unless `text` is exactly a TCP address with a peer id."""
        endpoint, rest = _endpoint(_components(text))
        if "p2p-circuit" in rest:
            raise ValueError("names a circuit, not a relay; circuits belong to bridge.peers")
        if not rest:
            raise ValueError("has no /p2p/PEERID: a relay is known by its peer id")
        if len(rest) != 2 or rest[0] != "p2p":
            raise ValueError(f"has '/{'/'.join(rest)}' where only /p2p/PEERID may follow")
        return cls(endpoint, peer_id(rest[1]))

    def __str__(self) -> str:
        family = "ip6" if self.endpoint.is_ipv6 else "ip4"
        return f"/{family}/{self.endpoint.host}/tcp/{self.endpoint.port}/p2p/{self.peer_id}"


NodePeer = Endpoint | RelayAddress
"""A node to ask for others: a Kaspa listener, or a libp2p one with its peer id."""


@dataclass(frozen=True, slots=True)
class PrivatePeer:
    """A peer without a dialable address; `via` is its relay, None: any relay that we use."""

    peer_id: str
    via: RelayAddress | None = None

    @classmethod
    def parse(cls, text: str) -> PrivatePeer:
        """From `PEERID` or `RELAY/p2p-circuit/p2p/PEERID`. Raises ValueError."""
        if not text.startswith("/"):
            return cls(peer_id(text))
        relay, circuit, target = text.partition("/p2p-circuit")
        if not circuit:
            raise ValueError("has no /p2p-circuit/p2p/PEERID: a private peer is reached by a relay")
        kind, _, name = target.lstrip("/").partition("/")
        if kind != "p2p" or not name or not target.startswith("/"):
            raise ValueError("has no /p2p/PEERID after /p2p-circuit")
        via, peer = RelayAddress.parse(relay), peer_id(name)
        if via.peer_id == peer:
            raise ValueError("reaches a peer through itself")
        return cls(peer, via)

    def __str__(self) -> str:
        return self.peer_id if self.via is None else f"{self.via}/p2p-circuit/p2p/{self.peer_id}"


def peer_id(text: str) -> str:
    """`text`, if it is a peer id in its base58 text form. Raises ValueError."""
    if not text:
        raise ValueError("has an empty peer id")
    if text.startswith(("bafz", "k51", "k2k4")):
        raise ValueError("is a peer id in CID form; write the base58 form (12D3… or Qm…)")
    wrong = next((character for character in text if character not in _BASE58), None)
    if wrong is not None:
        raise ValueError(f"is not a peer id: {wrong!r} is not a base58 character")
    if len(text) > 64:
        raise ValueError("is not a peer id: too long")
    digest = _base58_decode(text)
    code, length = (digest[0], digest[1]) if len(digest) >= 2 else (-1, -1)
    inline = code == _IDENTITY and 0 < length <= _MAX_INLINE
    hashed = code == _SHA2_256 and length == 32
    if not (inline or hashed):
        raise ValueError("is not a peer id: it holds no key and no SHA-256 of one")
    if len(digest) != length + 2:
        raise ValueError(f"is not a peer id: {len(digest)} bytes where {length + 2} belong")
    return text


def is_assignable(host: str) -> bool:
    """Can a host have this address at all? Not: unspecified, multicast, 240.0.0.0/4.

    240.0.0.0/4 holds Kaspa's synthetic addresses, which must never be dialled.
    """
    address = _unmapped(host)
    if address.is_unspecified or address.is_multicast:
        return False
    return not (address.version == 4 and address.is_reserved)


def _unmapped(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address that is meant: an IPv4-mapped IPv6 address means the IPv4 one."""
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _components(text: str) -> list[str]:
    if not text.startswith("/"):
        raise ValueError("is not a multiaddr: it does not begin with '/'")
    if text.endswith("/"):
        raise ValueError("is not a multiaddr: it ends with '/'")
    return text[1:].split("/")


def _endpoint(parts: list[str]) -> tuple[Endpoint, list[str]]:
    family, rest = parts[0], parts[1:]
    if family.startswith("dns"):
        raise ValueError("has a DNS name; write the IP address")
    if family not in ("ip4", "ip6") or not rest:
        raise ValueError("does not begin with /ip4/IP or /ip6/IP")
    host, rest = rest[0], rest[1:]
    try:
        address: ipaddress.IPv4Address | ipaddress.IPv6Address
        address = (ipaddress.IPv4Address if family == "ip4" else ipaddress.IPv6Address)(host)
    except ValueError:
        raise ValueError(f"has {host!r} where an IPv{family[2]} address belongs") from None
    if "%" in host or not is_assignable(str(address)):
        raise ValueError(f"has {host!r}, which cannot be dialled")
    if len(rest) < 2 or rest[0] != "tcp":
        raise ValueError("has no /tcp/PORT after the IP address")
    port, rest = rest[1], rest[2:]
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise ValueError(f"has {port!r} where a port (1 to 65535) belongs")
    return Endpoint(str(address), int(port)), rest


def _base58_decode(text: str) -> bytes:
    number = 0
    for character in text:
        number = number * 58 + _BASE58.index(character)
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
