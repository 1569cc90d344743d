"""Addresses that are no host's: the keys under which private peers are gossiped, and their like.

A peer without a routable address travels under one made of its peer id; nobody may ever dial it.
Source: the relay-capable kaspad's `addresses` messages; 240.0.0.0/4 is reserved (RFC 1112).
"""

from __future__ import annotations

import hashlib
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from appliance.network import Endpoint

IpAddress = IPv4Address | IPv6Address

_BASE: Final = 240 << 24
_LOW_28_BITS: Final = 0x0FFFFFFF


def synthetic_endpoint(peer_id: str) -> Endpoint:
    """The address under which the private peer of this text id is gossiped."""
    digest = hashlib.sha256(peer_id.encode()).digest()
    ip = IPv4Address(_BASE | int.from_bytes(digest[:4], "big") & _LOW_28_BITS)
    port = 1024 + int.from_bytes(digest[4:6], "big") % 64512
    return Endpoint(str(ip), port)


def plain(ip: IpAddress) -> IpAddress:
    """An IPv4-mapped IPv6 address means the IPv4 one."""
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return mapped or ip


def is_synthetic(ip: IpAddress) -> bool:
    """Whether it lies in 240.0.0.0/4, however it is written."""
    ip = plain(ip)
    return isinstance(ip, IPv4Address) and int(ip) >= _BASE


def can_be_dialled(endpoint: Endpoint) -> bool:
    """Whether any host could ever answer there. Whether a dial is wise, policy decides."""
    ip = plain(ip_address(endpoint.host))
    no_host = is_synthetic(ip) or ip.is_unspecified or ip.is_multicast
    return not no_host and 0 < endpoint.port <= 65535
