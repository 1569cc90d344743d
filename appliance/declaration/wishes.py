"""What a declaration asks of the solver."""

from __future__ import annotations

import dataclasses

from appliance.declaration.model import Declaration
from appliance.sizing.model import Wishes


def wishes(declaration: Declaration) -> Wishes:
    """`relay_mode: auto` counts as relaying: it may begin at any time."""
    node, bridge, found = declaration.node, declaration.bridge, declaration.discovery
    own = (
        (field.name, f"caps.{field.name}", getattr(declaration.caps, field.name))
        for field in dataclasses.fields(declaration.caps)
    )
    said = {
        name: (field, value)
        for name, field, value in (
            ("inbound_private", "bridge.private_inbound_target", bridge.private_inbound_target),
            ("per_relay_inbound", "bridge.per_relay_inbound", bridge.per_relay_inbound),
            *own,
        )
        if value is not None
    }
    return Wishes(
        relay=bridge.relay_mode != "off",
        node=node.kind,
        peers=len(bridge.peers),
        # One more while one is exchanged for another.
        relays=max(len(bridge.relays), found.relays_wanted + 1 if found.enabled else 0),
        listeners=len(bridge.listen),
        dials=len(node.connect or node.addpeer),
        as_table=found.as_table is not None,
        caps={name: value for name, (_, value) in said.items()},
        caps_fields={name: field for name, (field, _) in said.items()},
    )
