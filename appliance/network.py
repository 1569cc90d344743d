"""Kaspa networks, socket endpoints, and ranges of addresses: small values that every room may
name."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import Enum


class Network(str, Enum):
    """A Kaspa network by its short name."""

    MAINNET = "mainnet"
    TESTNET_10 = "testnet-10"
    SIMNET = "simnet"
    DEVNET = "devnet"

    @property
    def wire_name(self) -> str:
        """The `network` field of a `version` message."""
        return f"kaspa-{self.value}"

    @property
    def p2p_port(self) -> int:
        """kaspad's default P2P port."""
        return _P2P_PORTS[self]

    @property
    def rpc_port(self) -> int:
        """kaspad's default gRPC port."""
        return _P2P_PORTS[self] - 1

    @property
    def dns_seeders(self) -> tuple[str, ...]:
        """Host names that resolve to addresses of nodes, on the P2P port."""
        return _DNS_SEEDERS.get(self, ())


_P2P_PORTS = {
    Network.MAINNET: 16111,
    Network.TESTNET_10: 16211,
    Network.SIMNET: 16511,
    Network.DEVNET: 16611,
}

# rusty-kaspa, consensus/core/src/config/params.rs, dns_seeders.
_DNS_SEEDERS = {
    Network.MAINNET: (
        "mainnet-dnsseed-1.kaspanet.org",
        "mainnet-dnsseed-2.kaspanet.org",
        "seeder1.kaspad.net",
        "seeder2.kaspad.net",
        "seeder3.kaspad.net",
        "seeder4.kaspad.net",
        "kaspadns.kaspacalc.net",
        "n-mainnet.kaspa.ws",
        "dnsseeder-kaspa-mainnet.x-con.at",
    ),
    Network.TESTNET_10: (
        "seeder1-tn.kaspad.net",
        "dnsseeder-kaspa-testnet.x-con.at",
        "n-testnet-10.kaspa.ws",
    ),
}


IpNetworks = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]


def _networks(texts: str) -> IpNetworks:
    return tuple(map(ipaddress.ip_network, texts.split()))


# IANA special-purpose address registries (RFC 6890 and later ones).
SITE_ONLY = _networks(
    """10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 169.254.0.0/16 127.0.0.0/8
    192.0.0.0/24 198.18.0.0/15 ::/96 fc00::/7 fe80::/10 fec0::/10"""
)
"""Means something inside one site. 192.0.0.0/24 is what a machine behind 464XLAT or DS-Lite holds,
198.18.0.0/15 is for benchmarks; ::/96 holds loopback, and IPv4 as nobody writes it any more."""
DOCUMENTATION = _networks("192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 2001:db8::/32 3fff::/20")
"""Given out by nobody (RFC 5737, 3849, 9637); laboratories live in them."""
NO_HOST = _networks(
    """0.0.0.0/8 192.88.99.0/24 224.0.0.0/4 240.0.0.0/4 ::/128 100::/64 ff00::/8 64:ff9b::/96
    64:ff9b:1::/48 2002::/16 2001::/32 2001:10::/28 2001:20::/28 5f00::/16"""
)
"""Never an address of a host; 240.0.0.0/4 also holds the synthetic ones of the wire contract."""


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """A literal IP address and a TCP port; `str()` gives `ip:port` or `[ip6]:port`."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, default_port: int | None = None) -> Endpoint:
        """From `ip:port`, `[ip6]:port`, or a bare IP if `default_port` is given.

        Raises ValueError with a sentence that says what is wrong.
        """
        host, port_text = text, ""
        if text.startswith("["):
            host, bracket, rest = text[1:].partition("]")
            if not bracket or (rest and not rest.startswith(":")):
                raise ValueError(f"{text!r} is not [ip6]:port")
            port_text = rest[1:]
        elif text.count(":") == 1:
            host, _, port_text = text.partition(":")
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            raise ValueError(f"{host!r} is not an IP address") from None
        if not port_text:
            if default_port is None:
                raise ValueError(f"{text!r} has no port")
            return cls(str(address), default_port)
        if not port_text.isascii() or not port_text.isdigit() or not 0 <= int(port_text) <= 65535:
            raise ValueError(f"{port_text!r} is not a port (0 to 65535)")
        return cls(str(address), int(port_text))

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.host

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.is_ipv6 else f"{self.host}:{self.port}"
