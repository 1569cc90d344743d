"""The sockets that an appliance listens on, as its declaration says."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from appliance.declaration.model import Declaration
from appliance.network import Endpoint

MAX_PORT: Final = 65_535

Exposure = Literal["public", "lan", "loopback"]
Owner = Literal["bridge", "slots", "metrics", "node", "kaspad", "kaspad-rpc"]


@dataclass(frozen=True, slots=True)
class Listener:
    """One listening TCP socket, and the field that asks for it."""

    path: str
    owner: str
    endpoint: Endpoint


def listeners(declaration: Declaration) -> Iterator[Listener]:
    """The appliance's own; a kaspad's are its own affair. Port 0 is any free one."""
    for index, endpoint in enumerate(declaration.bridge.listen):
        yield Listener(f"bridge.listen[{index}]", "the bridge", endpoint)
    for index, peer in enumerate(declaration.bridge.peers):
        yield Listener("bridge.slots", f"the slot of {peer.peer_id}", declaration.slot(index))
    if declaration.metrics.listen is not None:
        yield Listener("metrics.listen", "metrics", declaration.metrics.listen)
    if declaration.node.kind == "embedded":
        yield Listener("node.p2p", "the embedded node", declaration.node.p2p)


def found_slots(declaration: Declaration, outbound_private: int) -> Iterator[tuple[int, Endpoint]]:
    """Index and place of each slot for a peer that is found: what the cap leaves beyond `peers`."""
    node, first = declaration.node, declaration.bridge.slots
    if node.kind == "remote" and ipaddress.ip_address(first.host).is_loopback:
        return  # nobody could dial them
    taken = {node.p2p.port, *(one.endpoint.port for one in listeners(declaration))}
    for index in range(len(declaration.bridge.peers), outbound_private):
        where = declaration.slot(index)
        if where.port > MAX_PORT or (where.port and where.port in taken):
            continue  # a file that was right before must stay so
        yield index, where


@dataclass(frozen=True, slots=True)
class Exposed:
    """One listening socket of the machine, as a packet filter wants to know it."""

    owner: Owner
    address: str
    port: int
    transport: Literal["tcp"]
    exposure: Exposure
    """Who can reach the address if nothing is in the way."""


def exposed(declaration: Declaration, outbound_private: int) -> Iterator[Exposed]:
    """Every socket whose port is said: the appliance's, and those of a kaspad beside it."""
    for listener in listeners(declaration):
        yield from _exposed(_OWNERS[listener.path.partition("[")[0]], listener.endpoint)
    for _, endpoint in found_slots(declaration, outbound_private):
        yield from _exposed("slots", endpoint)
    if declaration.node.kind == "kaspad":
        yield from _exposed("kaspad", declaration.node.p2p)
        if declaration.node.rpc is not None:
            yield from _exposed("kaspad-rpc", declaration.node.rpc)


_OWNERS: Final[dict[str, Owner]] = {
    "bridge.listen": "bridge",
    "bridge.slots": "slots",
    "metrics.listen": "metrics",
    "node.p2p": "node",
}


def _exposed(owner: Owner, endpoint: Endpoint) -> Iterator[Exposed]:
    if endpoint.port:
        yield Exposed(owner, endpoint.host, endpoint.port, "tcp", _exposure(endpoint.host))


def _exposure(host: str) -> Exposure:
    address = ipaddress.ip_address(host)
    if address.is_loopback:
        return "loopback"
    # "Private" to the library is whatever is not to be routed, documentation addresses included.
    return "public" if address.is_unspecified or address.is_global else "lan"
