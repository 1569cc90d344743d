"""The way to a private peer: its relay, as Kaspa's gossip and signed records write it.

Text: `ip:port`, `[ip6]:port`, or `/ip4|ip6/IP/tcp/PORT`, `/p2p/RELAY` behind it if the relay's id
is known, and `/p2p-circuit` behind that from some writers. Source: relay-capable kaspad.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Final

from appliance.errors import RemoteProtocolError
from appliance.network import Endpoint
from appliance.reasons import Reason
from appliance.wire import multiaddr, peer_ids
from appliance.wire.synthetic import can_be_dialled, plain

MAX_HINT: Final = 256
"""Characters; with IPv6, a peer id and `/p2p-circuit` it comes to about 140."""

_FAMILIES: Final = {"ip4": 4, "ip6": 6}


@dataclass(frozen=True, slots=True, order=True)
class RelayWay:
    """A relay that leads to a private peer; `str()` gives the multiaddr form."""

    endpoint: Endpoint
    peer_id: str | None = None

    def __str__(self) -> str:
        family = "ip6" if self.endpoint.is_ipv6 else "ip4"
        base = f"/{family}/{self.endpoint.host}/tcp/{self.endpoint.port}"
        return base if self.peer_id is None else f"{base}/p2p/{self.peer_id}"


def parse_hint(text: str) -> RelayWay:
    """A `relayCircuitHint`. Raises RemoteProtocolError (malformed-message)."""
    if len(text) > MAX_HINT or "%" in text:
        raise malformed("a relay hint out of its bounds")
    try:
        if not text.startswith("/"):
            return check_way(RelayWay(Endpoint.parse(text)))
        family, host, tcp, port, *rest = text[1:].rstrip("/").split("/")
        if tcp != "tcp" or ip_address(host).version != _FAMILIES[family]:
            raise ValueError(text)
        endpoint = Endpoint.parse(f"[{host}]:{port}")
    except (ValueError, KeyError):
        raise malformed("a relay hint that names no TCP address") from None
    if rest[-1:] == ["p2p-circuit"]:
        rest = rest[:-1]
    match rest:
        case []:
            return check_way(RelayWay(endpoint))
        case ["p2p", relay]:
            return check_way(RelayWay(endpoint, relay))
    raise malformed("a relay hint with more than a relay in it")


def check_way(way: RelayWay) -> RelayWay:
    """The same, its address in plain form. Raises RemoteProtocolError (malformed-message)."""
    if way.peer_id is not None:
        peer_ids.to_bytes(way.peer_id)
    return replace(way, endpoint=check_endpoint(way.endpoint))


def check_endpoint(endpoint: Endpoint) -> Endpoint:
    """The same in plain form. Raises RemoteProtocolError (malformed-message) for no host's."""
    if not can_be_dialled(endpoint):
        raise malformed(f"{endpoint} is no host's address")
    return Endpoint(str(plain(ip_address(endpoint.host))), endpoint.port)


def encode_way(way: RelayWay) -> bytes:
    """As a binary multiaddr."""
    return multiaddr.encode(
        way.endpoint, None if way.peer_id is None else peer_ids.to_bytes(way.peer_id)
    )


def malformed(what: str) -> RemoteProtocolError:
    return RemoteProtocolError(Reason.MALFORMED_MESSAGE, what)
