"""Where we can be reached at this moment, and what we say of it: our own record and claim."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal

from appliance.bridge.host import Host
from appliance.bridge.relay import RelayService
from appliance.bridge.reservations import ReservationKeeper
from appliance.clock import Clock
from appliance.network import Endpoint, Network
from appliance.policy.reach import is_dialable
from appliance.policy.relaying import RelayLimits
from appliance.wire.capability import Claim, PrivateClaim, PublicClaim
from appliance.wire.circuit import Limit
from appliance.wire.envelope import Signer
from appliance.wire.records import (
    MAX_RELAYS,
    RENEW_AFTER,
    CapabilityRecord,
    RelayOffer,
    expiry,
    next_sequence,
    seal,
    withdrawal,
)
from appliance.wire.ways import RelayWay


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What could be said of us. With an offer we relay for others; else `relays` lead to us."""

    addresses: tuple[Endpoint, ...] = ()  # libp2p listeners that strangers can dial
    offer: RelayOffer | None = None
    relays: tuple[RelayWay, ...] = ()
    node: Endpoint | None = None  # the Kaspa listener, if strangers can dial it

    @property
    def is_public(self) -> bool:
        return self.offer is not None and bool(self.addresses)

    def __bool__(self) -> bool:
        return self.is_public or bool(self.relays)


def reach_of(
    host: Host,
    relay: RelayService,
    keeper: ReservationKeeper,
    node: Endpoint | None,
) -> Reach:
    """As things stand: public while our relay serves, else private behind our reservations.

    `node` is where strangers dial our Kaspa node: `node_listener`.
    """
    if relay.running:
        table = relay.table
        addresses = host.announced()
        if table.draining or not addresses:
            return Reach()
        return Reach(addresses=addresses, offer=_offer(table.limits), node=node)
    ways = (
        RelayWay(state.endpoint, state.peer_id)
        for state in keeper.relays.values()
        if state.state in ("active", "renewing")
    )
    return Reach(relays=tuple(sorted(ways, key=str)[:MAX_RELAYS]))


def node_listener(
    kind: Literal["kaspad", "embedded", "remote"],
    node: Endpoint,
    announced: Sequence[Endpoint],
    *,
    allow_private: bool,
) -> Endpoint | None:
    """Where strangers dial the Kaspa node, as far as we can know; None: nowhere.

    A kaspad that we reach on loopback listens everywhere, unless told otherwise: then its host is
    the one under which strangers know us. The embedded node listens where we say.
    """
    if not node.port:
        return None
    at = ip_address(node.host)
    if not at.is_unspecified and is_dialable(node, allow_private=allow_private):
        return node
    if kind == "remote" or (kind == "embedded" and not at.is_unspecified):
        return None
    same_family = (one for one in announced if one.is_ipv6 == node.is_ipv6)
    known_as = next(same_family, None)
    return None if known_as is None else Endpoint(known_as.host, node.port)


class OwnRecord:
    """Our signed record, made when it is asked for and what it says has changed or grown old."""

    def __init__(
        self,
        signer: Signer,
        peer_id: str,
        network: Network,
        reach: Callable[[], Reach],
        clock: Clock,
    ) -> None:
        self._signer = signer
        self._peer_id = peer_id
        self._network = network
        self._reach = reach
        self._clock = clock
        self._said: Reach | None = None
        self._sequence = 0
        self._sealed: bytes | None = None
        self._withdrawn = False

    def reach(self) -> Reach:
        """Nothing, once it was withdrawn."""
        return Reach() if self._withdrawn else self._reach()

    def sealed(self) -> bytes | None:
        """What to tell others of us now; None if there is nothing, and never was."""
        now = self._clock.wall()
        reach = self.reach()
        if reach == self._said and now - self._sequence / 1000 < RENEW_AFTER:
            return self._sealed
        if not reach and self._said is None:
            return None
        self._sequence = next_sequence(now, self._sequence)
        self._said = reach
        self._sealed = seal(self._record(reach), self._signer)
        return self._sealed

    def withdraw(self) -> bytes | None:
        """From now on we say that nobody reaches us; None if nobody was ever told otherwise."""
        self._withdrawn = True
        return self.sealed()

    def claim(self) -> Claim | None:
        """The same in Kaspa's own fields."""
        reach = self.reach()
        if not reach.is_public:
            via = reach.relays[0] if reach.relays else None
            return None if self._withdrawn else PrivateClaim(peer_id=self._peer_id, via=via)
        assert reach.offer is not None  # it is public
        for at in reach.addresses:
            # A claim has one host for the node and its relay.
            if reach.node is not None and reach.node.host == at.host:
                return PublicClaim(
                    node=reach.node,
                    relay_port=at.port,
                    peer_id=self._peer_id,
                    capacity=reach.offer.capacity,
                )
        return None

    def _record(self, reach: Reach) -> CapabilityRecord:
        if not reach:
            return withdrawal(self._peer_id, self._network, self._sequence)
        return CapabilityRecord(
            peer_id=self._peer_id,
            network=self._network,
            sequence=self._sequence,
            expires=expiry(self._sequence),
            addresses=reach.addresses,
            offer=reach.offer,
            relays=reach.relays,
            node=reach.node,
        )


def _offer(limits: RelayLimits) -> RelayOffer:
    return RelayOffer(limits.reservations, Limit(limits.circuit_seconds, limits.circuit_bytes))
