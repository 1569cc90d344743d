"""What a declaration asks of the solver."""

from __future__ import annotations

from appliance.declaration.model import Declaration
from appliance.sizing.model import Wishes


def wishes(declaration: Declaration) -> Wishes:
    """`relay_mode: auto` counts as relaying: it may begin at any time."""
    node, bridge = declaration.node, declaration.bridge
    return Wishes(
        relay=bridge.relay_mode != "off",
        embedded=node.kind == "embedded",
        peers=len(bridge.peers),
        relays=len(bridge.relays),
        listeners=len(bridge.listen),
        dials=len(node.connect or node.addpeer),
        private_inbound_target=bridge.private_inbound_target,
        per_relay_inbound=bridge.per_relay_inbound,
    )
