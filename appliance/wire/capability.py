"""Who can relay, and how private peers are reached, in the fields of Kaspa's own messages.

Relay-capable kaspads put these fields into `version` and into `addresses`; stock ones drop them.
Nothing of it is signed: a claim is a reason to try, and no proof. Bounds are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, ip_address
from typing import Final

from appliance.network import Endpoint
from appliance.units import HOUR, MINUTE
from appliance.wire import peer_ids
from appliance.wire.kaspa_messages import NetAddress, RelayRole, Version
from appliance.wire.synthetic import can_be_dialled, is_synthetic, synthetic_endpoint
from appliance.wire.ways import RelayWay, check_way, malformed, parse_hint

RELAY_SERVICE: Final = 1 << 0
"""`services`: this address can serve as a libp2p relay."""
DEFAULT_LIFETIME: Final = 30 * MINUTE
"""Seconds of a claim that does not say (relay-capable kaspad's own default)."""
MAX_LIFETIME: Final = HOUR
"""Seconds of any claim: as long as a reservation lasts in the field. Repeat it to prolong it."""
MAX_CAPACITY: Final = 1 << 16
"""Peers that any relay can be willing to serve; more is cut to this."""

# What stock's address manager skips without a word, where a synthetic address would be kept,
# dialled and passed on: rusty-kaspa, components/addressmanager/src/lib.rs, add_address.
_NOWHERE: Final = Endpoint("0.0.0.0", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicClaim:
    """Says "dial me, I relay for others": a Kaspa node, and a relay on `relay_port` beside it."""

    node: Endpoint
    relay_port: int
    peer_id: str | None = None  # relay-capable kaspad leaves it out
    capacity: int = 0  # peers that it will relay for; 0: not said
    lifetime: float = DEFAULT_LIFETIME  # seconds from when it was heard

    @property
    def relay(self) -> Endpoint:
        return Endpoint(self.node.host, self.relay_port)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateClaim:
    """Says "reach me through this relay". `node` is where it can be dialled besides, if anywhere.

    Without a way yet it only tells a peer that we understand such claims.
    """

    peer_id: str
    via: RelayWay | None
    node: Endpoint | None = None
    lifetime: float = DEFAULT_LIFETIME  # seconds from when it was heard


Claim = PublicClaim | PrivateClaim


def claimed_address(claim: Claim) -> NetAddress:
    """The `NetAddress` that makes this claim to a peer that understands it.

    A private peer goes under its synthetic address: not for stock peers, who would dial it.
    """
    lifetime_ms = round(min(claim.lifetime, MAX_LIFETIME) * 1000)
    if isinstance(claim, PublicClaim):
        return NetAddress(
            ip=ip_address(claim.node.host),
            port=claim.node.port,
            services=RELAY_SERVICE,
            relay_port=claim.relay_port,
            relay_capacity=min(claim.capacity, MAX_CAPACITY),
            relay_ttl_ms=lifetime_ms,
            relay_role=RelayRole.PUBLIC,
            libp2p_peer_id=claim.peer_id or "",
        )
    at = claim.node or synthetic_endpoint(claim.peer_id)
    return NetAddress(
        ip=ip_address(at.host),
        port=at.port,
        relay_ttl_ms=lifetime_ms,
        relay_role=RelayRole.PRIVATE,
        libp2p_peer_id=claim.peer_id,
        relay_circuit_hint="" if claim.via is None else str(claim.via),
    )


def claiming(version: Version, claim: Claim | None) -> Version:
    """`version` with the claim in it; without one, unchanged.

    It goes out before we know who listens. A stock node skips the unspecified address under which
    a private peer speaks here; whoever knows the fields finds the way to it all the same.
    """
    if claim is None:
        return version
    address = claimed_address(claim)
    if is_synthetic(address.ip):
        address = replace(address, ip=IPv4Address(_NOWHERE.host), port=_NOWHERE.port)
    return replace(version, services=version.services | address.services, address=address)


def makes_claim(address: NetAddress) -> bool:
    """Whether any of the fields is set that stock does not have."""
    return bool(
        address.services & RELAY_SERVICE
        or address.relay_port
        or address.relay_role
        or address.libp2p_peer_id
        or address.relay_circuit_hint
    )


def understands_claims(version: Version) -> bool:
    """Whether the peer that said this is no stock node: it fills fields that stock does not have.

    Only such a peer is told addresses that are none.
    """
    address = version.address
    return bool(version.services & RELAY_SERVICE) or (address is not None and makes_claim(address))


def read_version(version: Version) -> Claim | None:
    """What a peer claims of itself; None: nothing, as every stock node and older appliance.

    Raises RemoteProtocolError (malformed-message) for a claim that cannot be.
    """
    if version.address is None:
        return None
    return read_claim(
        replace(version.address, services=version.address.services | version.services)
    )


def read_claim(address: NetAddress) -> Claim | None:
    """What is claimed of an address; None: nothing. A later lifetime than ours is cut.

    Raises RemoteProtocolError (malformed-message) for a claim that cannot be.
    """
    if not makes_claim(address):
        return None
    said = address.relay_ttl_ms / 1000 or DEFAULT_LIFETIME
    lifetime = min(said, MAX_LIFETIME)
    peer_id = address.libp2p_peer_id or None
    if peer_id is not None:
        peer_ids.to_bytes(peer_id)
    at = Endpoint(str(address.ip), address.port)
    node = at if can_be_dialled(at) else None
    relays = bool(address.services & RELAY_SERVICE) and address.relay_role != RelayRole.PRIVATE
    if relays:
        if node is None or not 0 < address.relay_port <= 65535:
            raise malformed(f"a relay at port {address.relay_port} of {at}")
        return PublicClaim(
            node=node,
            relay_port=address.relay_port,
            peer_id=peer_id,
            capacity=min(address.relay_capacity, MAX_CAPACITY),
            lifetime=lifetime,
        )
    if peer_id is None or not address.relay_circuit_hint:
        return None  # its role alone helps nobody to reach it
    via = check_way(parse_hint(address.relay_circuit_hint))
    if via.peer_id == peer_id:
        raise malformed("a peer that is reached through itself")
    if is_synthetic(address.ip) and at != synthetic_endpoint(peer_id):
        raise malformed("a synthetic address of another peer")
    return PrivateClaim(peer_id=peer_id, via=via, node=node, lifetime=lifetime)


def aged(address: NetAddress, seconds: float) -> NetAddress | None:
    """`address` as it may be passed on `seconds` after it was heard.

    Its claim goes on with what is left of its life and ends with it: repeating prolongs nothing.
    None if nothing is left to tell, because the address is no host's.
    """
    if not makes_claim(address):
        return None if is_synthetic(address.ip) else address
    said = address.relay_ttl_ms / 1000 or DEFAULT_LIFETIME
    left = min(said, MAX_LIFETIME) - seconds
    if left >= 1:
        return replace(address, relay_ttl_ms=int(left * 1000))
    if not can_be_dialled(Endpoint(str(address.ip), address.port)):
        return None
    return replace(
        address,
        services=address.services & ~RELAY_SERVICE,
        relay_port=0,
        relay_capacity=0,
        relay_ttl_ms=0,
        relay_role=RelayRole.UNSPECIFIED,
        libp2p_peer_id="",
        relay_circuit_hint="",
    )
