"""Identities and records for the tests of signed records and their gossip."""

from __future__ import annotations

import hashlib
from typing import Any

from appliance.network import Endpoint, Network
from appliance.wire import envelope, peer_ids
from appliance.wire.circuit import Limit
from appliance.wire.envelope import Ed25519Signer
from appliance.wire.records import CapabilityRecord, RelayOffer, expiry, next_sequence
from appliance.wire.ways import RelayWay

NOW = 1_800_000_000.0


def signer(name: str) -> Ed25519Signer:
    """The same key for the same name in every run."""
    return Ed25519Signer(hashlib.sha256(name.encode()).digest())


def peer(name: str) -> str:
    return peer_ids.to_text(signer(name).key.peer_id)


def record(name: str = "alice", issued: float = NOW, **fields: Any) -> CapabilityRecord:
    """A public relay, unless `fields` say otherwise."""
    sequence = fields.pop("sequence", next_sequence(issued))
    filled: dict[str, Any] = {
        "peer_id": peer(name),
        "network": Network.SIMNET,
        "sequence": sequence,
        "expires": expiry(sequence),
        "addresses": (Endpoint("203.0.113.7", 16112), Endpoint("2001:db8::7", 16112)),
        "offer": RelayOffer(64, Limit(3600, 1 << 30)),
        "node": Endpoint("203.0.113.7", 16111),
        **fields,
    }
    return CapabilityRecord(**filled)


def private(name: str = "bob", issued: float = NOW, **fields: Any) -> CapabilityRecord:
    """Reached through two relays."""
    ways = (
        RelayWay(Endpoint("203.0.113.7", 16112), peer("alice")),
        RelayWay(Endpoint("203.0.113.8", 16112), peer("carol")),
    )
    return record(
        name, issued, **{"addresses": (), "offer": None, "node": None, "relays": ways, **fields}
    )


def resigned(data: bytes, name: str) -> bytes:
    """The payload of a sealed record in an envelope that somebody else signed."""
    sealed = envelope.decode(data)
    domain = "kaspa-appliance-capability"
    return envelope.seal(domain, sealed.payload_type, sealed.payload, signer(name))
