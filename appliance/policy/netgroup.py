"""What is dear to have many of: the network that an address is in.

A thousand addresses of one network cost an attacker hardly more than one. The sizes are the
address book's: the first two octets of IPv4, the first four of IPv6.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from appliance.network import Endpoint
from appliance.policy.reach import is_routable

Grouping = Callable[[Endpoint], str]
"""A name for the network that an endpoint is in."""


def by_network(endpoint: Endpoint) -> str:
    """The /16 of IPv4, the /32 of IPv6."""
    return _network(endpoint, 16, 32)


def by_segment(endpoint: Endpoint) -> str:
    """The same for laboratories, where a /24 or a /64 stands for a network of the internet.

    Only for addresses that the internet does not know; on loopback each port is a network.
    """
    if is_routable(endpoint):
        return by_network(endpoint)
    if ipaddress.ip_address(endpoint.host).is_loopback:
        return str(endpoint)
    return _network(endpoint, 24, 64)


def _network(endpoint: Endpoint, four: int, six: int) -> str:
    ip = ipaddress.ip_address(endpoint.host)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return str(ipaddress.ip_network((ip, four if ip.version == 4 else six), strict=False))
