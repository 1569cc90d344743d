"""Addresses as keys: 16 bytes of IPv6 (IPv4 mapped into it), 2 bytes of port, big-endian.

In that order a range scan by prefix gives a host, a network, all of IPv4. `group_of` is what an
attacker has to pay for: the first two octets of IPv4, the first four of IPv6.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterator
from typing import Final

from appliance.network import DOCUMENTATION, NO_HOST, SITE_ONLY, Endpoint, IpNetworks

KEY_SIZE: Final = 18
MAPPED: Final = bytes(10) + b"\xff\xff"
"""What stands before the four octets of an IPv4 address."""
SYNTHETIC_GROUP: Final = b"synthetic"

Range = tuple[int, int]
"""Of a network: the bits that are the same, as a number, and how many bits are not."""


def _ranges(networks: IpNetworks) -> tuple[tuple[Range, ...], tuple[Range, ...]]:
    four: list[Range] = []
    six: list[Range] = []
    for network in networks:
        host_bits = network.max_prefixlen - network.prefixlen
        (four if network.version == 4 else six).append(
            (int(network.network_address) >> host_bits, host_bits)
        )
    return tuple(four), tuple(six)


# Where a stranger's claim may not send us: what `policy.reach` says of the same addresses.
_NOWHERE: Final = _ranges((*SITE_ONLY, *DOCUMENTATION, *NO_HOST))
# Of these, what makes no sense even in a laboratory.
_NEVER: Final = _ranges(NO_HOST)


def pack(endpoint: Endpoint) -> bytes:
    """The key of an endpoint. ValueError if the host is no literal address or the port is 0."""
    return pack_ip(endpoint.host) + _port(endpoint.port)


def pack_octets(ip: bytes, port: int) -> bytes:
    """The key of 4 or 16 octets, as the wire has them. ValueError for any other length."""
    if len(ip) == 4:
        return MAPPED + ip + _port(port)
    if len(ip) != 16:
        raise ValueError(f"an address of {len(ip)} bytes")
    return ip + _port(port)


def pack_ip(host: str) -> bytes:
    """16 octets. ValueError if `host` is not a literal IP address; a zone is refused too."""
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv4Address):
        return MAPPED + address.packed
    if address.scope_id:
        raise ValueError(f"{host!r} has a zone")
    return address.packed


def _port(port: int) -> bytes:
    if not 0 < port < 65536:
        raise ValueError(f"{port} is not a port")
    return port.to_bytes(2, "big")


def host_of(key: bytes) -> str:
    """The text of the IP address in the first 16 bytes."""
    if key[:12] == MAPPED:
        return str(ipaddress.IPv4Address(key[12:16]))
    return str(ipaddress.IPv6Address(key[:16]))


def unpack(key: bytes) -> Endpoint:
    """The inverse of `pack`. ValueError unless `key` has 18 bytes."""
    if len(key) != KEY_SIZE:
        raise ValueError(f"a key of {len(key)} bytes")
    return Endpoint(host_of(key), int.from_bytes(key[16:], "big"))


def group_of(key: bytes) -> bytes:
    """The part of an address that is dear to have many of: IPv4's /16, IPv6's /32."""
    if key[:12] == MAPPED:
        return SYNTHETIC_GROUP if key[12] >= 240 else key[12:14]
    return key[:4]


def is_synthetic(key: bytes) -> bool:
    """Whether it stands for a private peer and must never be dialled by TCP: 240.0.0.0/4."""
    return key[:12] == MAPPED and key[12] >= 240


def may_be_dialled(key: bytes, *, allow_private: bool = False) -> bool:
    """Whether a stranger's claim may send us there; `allow_private` is for laboratories."""
    if is_synthetic(key):
        return False
    is_six = key[:12] != MAPPED
    address = int.from_bytes(key[:16] if is_six else key[12:16], "big")
    ranges = (_NEVER if allow_private else _NOWHERE)[is_six]
    return not any(address >> host_bits == prefix for prefix, host_bits in ranges)


def closed_sixteens(*, allow_private: bool = False) -> Iterator[tuple[int, int, bool]]:
    """The /16 networks of IPv4, from and up to, of which `may_be_dialled` refuses all or some."""
    for prefix, host_bits in (_NEVER if allow_private else _NOWHERE)[0]:
        if host_bits < 16:
            yield prefix >> (16 - host_bits), (prefix >> (16 - host_bits)) + 1, False
        else:
            yield prefix << (host_bits - 16), (prefix + 1) << (host_bits - 16), True
    yield 240 << 8, 1 << 16, True


def synthetic(peer_id: str) -> bytes:
    """The key under which relay-capable kaspads gossip a private peer (wire contract, part 1)."""
    digest = hashlib.sha256(peer_id.encode("ascii")).digest()
    host = 0xF0000000 | int.from_bytes(digest[:4], "big") & 0x0FFFFFFF
    port = min(1024 + int.from_bytes(digest[4:6], "big") % 64512, 65535)
    return MAPPED + host.to_bytes(4, "big") + port.to_bytes(2, "big")


def from_text(text: str) -> bytes | None:
    """The key in `/ip4|ip6/IP/tcp/PORT…` or `ip:port`; None if there is no literal address."""
    found = re.match(r"/ip[46]/([^/]+)/tcp/([0-9]{1,5})(?:/|$)", text)
    try:
        if found:
            return pack_ip(found[1]) + _port(int(found[2]))
        return pack(Endpoint.parse(text))
    except ValueError:
        return None
