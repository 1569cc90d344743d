"""The kinds of value that only a machine has: addresses with a prefix, public keys, Wi-Fi names."""

from __future__ import annotations

import ipaddress
from typing import Any

from appliance.declaration.addresses import is_assignable
from appliance.declaration.kinds import Kind, ListOf, Reading, Schema
from appliance.declaration.kinds_address import IP4, IP6, Parsed
from appliance.declaration.nodes import Node, Scalar
from appliance.declaration.publickeys import PATTERN, PublicKey
from appliance.declaration.secrets import HiddenKind

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


class OneOrMore(ListOf):
    """A list, or its only item by itself."""

    @property
    def secret(self) -> bool:
        return self.item.secret

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        if isinstance(node, Scalar) and node.tag != "null":
            value = self.item.read(node, path, reading)
            return (value,) if path not in reading.invalid else value
        return super().read(node, path, reading)

    def schema(self) -> Schema:
        return {"anyOf": [self.item.schema(), super().schema()]}


class PublicKeyKind(HiddenKind):
    """The value is a `PublicKey`. What is written may be the other half."""

    noun = "an SSH public key"

    def taken(self, node: Scalar, path: str, reading: Reading) -> Any:
        try:
            return PublicKey.parse(node.text)
        except ValueError as error:
            return reading.wrong(node.mark, path, str(error))

    def schema(self) -> Schema:
        return {"type": "string", "pattern": f"^(?:{PATTERN})$"}


class NetworkName(Kind):
    """What a Wi-Fi network calls itself."""

    noun = "the name of a Wi-Fi network (1 to 32 bytes)"

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        # IEEE 802.11: an SSID has 0 to 32 bytes. A name of digits only needs no quotes.
        if not isinstance(node, Scalar) or node.tag == "null":
            return self.bad(node, path, reading)
        fits = 1 <= len(node.text.encode()) <= 32
        return node.text if fits and node.text.isprintable() else self.bad(node, path, reading)

    def schema(self) -> Schema:
        return {"type": ["string", "number", "boolean"], "minLength": 1, "maxLength": 32}


def ip_kind() -> Kind:
    return Parsed("an IP address", rf"{IP4}|{IP6}", parse_ip)


def interface_address_kind() -> Kind:
    """`IP/PREFIX`: an address of this machine with the size of its network."""
    return Parsed("IP/PREFIX", rf"(?:{IP4}|{IP6})/[0-9]{{1,3}}", parse_interface_address)


def parse_ip(text: str) -> IpAddress:
    """Raises ValueError."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError("is not an IP address") from None
    if "%" in text or not is_assignable(text):
        raise ValueError("is an address that no host can have")
    return address


def parse_interface_address(text: str) -> IpInterface:
    """Raises ValueError."""
    host, slash, _ = text.partition("/")
    if not slash:
        address = parse_ip(host)
        size = 24 if address.version == 4 else 64
        raise ValueError(f"has no prefix length; in most networks it is {host}/{size}")
    try:
        found = ipaddress.ip_interface(text)
    except ValueError:
        raise ValueError("is not IP/PREFIX, such as 192.0.2.10/24") from None
    parse_ip(host)
    if found.ip.is_loopback or found.ip.is_link_local:
        raise ValueError("is an address that every machine has already; choose one of the LAN")
    network = found.network
    # RFC 3021: a network of two addresses has neither of the two special ones.
    if found.version == 4 and network.num_addresses > 2:
        if found.ip == network.network_address:
            raise ValueError(f"is the name of the whole network {network}, not one host's address")
        if found.ip == network.broadcast_address:
            raise ValueError(f"is the broadcast address of {network}")
    return found
