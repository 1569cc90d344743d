"""Which addresses are worth a dial, and which machines are public.

The ranges stand in `appliance.network`, for the address book too: it keeps what is `is_routable`,
and with `allow_private` what is `is_dialable`. Documentation addresses may be dialled: nobody
answers there in earnest, and laboratories live in them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from appliance.network import DOCUMENTATION, NO_HOST, SITE_ONLY, Endpoint, IpNetworks

MAX_CANDIDATES: Final = 8
"""Addresses of one peer that we dial at once: four would be enough for any real home."""


def _within(host: str, networks: IpNetworks) -> bool:
    ip = ipaddress.ip_address(host)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return any(ip.version == net.version and ip in net for net in networks)


def is_private(host: str) -> bool:
    """Whether the address means something inside one site only."""
    return _within(host, SITE_ONLY)


def is_dialable(endpoint: Endpoint, *, allow_private: bool) -> bool:
    """Whether a TCP dial to this announced endpoint can make sense."""
    if endpoint.port == 0 or _within(endpoint.host, NO_HOST):
        return False
    return allow_private or not is_private(endpoint.host)


def is_routable(endpoint: Endpoint) -> bool:
    """Whether having this address is evidence of being reachable from the internet."""
    return is_dialable(endpoint, allow_private=False) and not _within(endpoint.host, DOCUMENTATION)


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
