"""The sockets that an appliance listens on, as its declaration says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from appliance.declaration.model import Declaration
from appliance.network import Endpoint


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
