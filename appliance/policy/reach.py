"""Which addresses are worth a dial, and which machines are public.

Ranges: IANA special-purpose registries. The documentation ranges (198.51.100.0/24 and friends)
stay allowed: nobody answers there in earnest, and laboratories live in them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from appliance.network import Endpoint

MAX_CANDIDATES: Final = 8
"""Addresses of one peer that we dial at once: four would be enough for any real home."""

_Networks = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]

# Reachable inside one site only: dialled when the declaration says `dial_private`. 192.0.0.0/24
# is what a machine behind 464XLAT or DS-Lite holds, 198.18.0.0/15 is for benchmarks.
_PRIVATE: Final[_Networks] = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10",
                 "169.254.0.0/16", "127.0.0.0/8", "192.0.0.0/24", "198.18.0.0/15",
                 "::1/128", "fc00::/7", "fe80::/10", "fec0::/10")
)  # fmt: skip

# Given out by nobody (RFC 5737, 3849, 9637): fine to dial, no evidence of being public.
_DOCUMENTATION: Final[_Networks] = tuple(
    ipaddress.ip_network(text)
    for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20")
)

# Never an address of a host; 240.0.0.0/4 also holds the synthetic addresses of the wire contract.
_NEVER: Final[_Networks] = tuple(
    ipaddress.ip_network(text)
    for text in ("0.0.0.0/8", "192.88.99.0/24", "224.0.0.0/4", "240.0.0.0/4", "::/128",
                 "100::/64", "ff00::/8", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16",
                 "2001::/32", "2001:10::/28", "2001:20::/28", "5f00::/16")
)  # fmt: skip


def _within(host: str, networks: _Networks) -> bool:
    ip = ipaddress.ip_address(host)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return any(ip.version == net.version and ip in net for net in networks)


def is_private(host: str) -> bool:
    """Whether the address means something inside one site only."""
    return _within(host, _PRIVATE)


def is_dialable(endpoint: Endpoint, *, allow_private: bool) -> bool:
    """Whether a TCP dial to this announced endpoint can make sense."""
    if endpoint.port == 0 or _within(endpoint.host, _NEVER):
        return False
    return allow_private or not is_private(endpoint.host)


def is_routable(endpoint: Endpoint) -> bool:
    """Whether having this address is evidence of being reachable from the internet."""
    return is_dialable(endpoint, allow_private=False) and not _within(endpoint.host, _DOCUMENTATION)


def dialable(
    endpoints: Iterable[Endpoint], *, allow_private: bool, own: Iterable[Endpoint] = ()
) -> tuple[Endpoint, ...]:
    """The distinct dialable ones, our own left out, at most `MAX_CANDIDATES`, order kept."""
    mine = set(own)
    seen: dict[Endpoint, None] = {}
    for endpoint in endpoints:
        if endpoint not in mine and is_dialable(endpoint, allow_private=allow_private):
            seen[endpoint] = None
        if len(seen) == MAX_CANDIDATES:
            break
    return tuple(seen)
