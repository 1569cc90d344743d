"""What the declaration and the plan say of discovery."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.declaration import Declaration
from appliance.declaration.addresses import NodePeer
from appliance.network import Endpoint, Network
from appliance.sizing.model import Plan
from appliance.wire.gossip import ASKS_PER_HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Whom to ask first, what to want, how much to do."""

    network: Network
    peers: tuple[NodePeer, ...] = ()
    rpc: Endpoint | None = None
    dns_seeders: tuple[str, ...] = ()
    relays_wanted: int = 3
    at_once: int = 4
    """Exchanges under way; each is at most one new connection."""
    per_hour: int = ASKS_PER_HOUR


def settings_of(declaration: Declaration, plan: Plan) -> Settings:
    node, discovery = declaration.node, declaration.discovery
    return Settings(
        network=declaration.network,
        peers=node.peers,
        rpc=node.rpc,
        dns_seeders=discovery.dns_seeders,
        relays_wanted=discovery.relays_wanted,
        at_once=plan.caps.gossip,
    )
