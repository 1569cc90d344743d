"""The parts of an appliance, made from its declaration and plan and connected; nothing runs yet."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import psutil
import trio

from appliance.addresses.model import PeerRecord, Source
from appliance.addresses.store import AddressBook
from appliance.bridge.book_slots import BookSlot, Matchmaker
from appliance.bridge.circuits import CircuitAcceptor
from appliance.bridge.host import Host, HostLimits
from appliance.bridge.identity import Identity
from appliance.bridge.kaspa import KaspaStreams
from appliance.bridge.known import KnownPeers
from appliance.bridge.puncher import Puncher
from appliance.bridge.relay import RelayService
from appliance.bridge.relay_keeper import RelayKeeper
from appliance.bridge.reservations import ReservationKeeper
from appliance.bridge.slots import ListeningSlot, Slot, SlotSpec
from appliance.bridge.telemetry import Telemetry
from appliance.clock import TrioClock
from appliance.dataplane.plane import PlaneLimits
from appliance.declaration import Declaration
from appliance.declaration.addresses import PrivatePeer, RelayAddress
from appliance.declaration.listeners import found_slots
from appliance.discovery.agent import Discovery
from appliance.discovery.reach import Reach, node_listener, reach_of
from appliance.discovery.settings import settings_of
from appliance.errors import ApplianceError, Fault
from appliance.events import emit
from appliance.network import Endpoint
from appliance.node.embedded import EmbeddedNode
from appliance.policy.admission import InboundLimits
from appliance.policy.netgroup import by_network, by_segment
from appliance.policy.peer_choice import PeerCandidate, PeerChoice
from appliance.policy.relay_pool import RelayPool
from appliance.policy.relaying import RelayLimits
from appliance.policy.relays import Relay, RelayCandidate
from appliance.policy.role import Role, decide_role
from appliance.reasons import Reason
from appliance.sizing.model import Plan

NO_RELAY: Final = frozenset({Reason.WRONG_PEER, Reason.UNSUPPORTED_PROTOCOL})
"""Failures that show that nobody relays where it was claimed."""
_log = logging.getLogger("appliance.app")


@dataclass(slots=True)
class Appliance:
    """The running parts, for whoever reports on them."""

    declaration: Declaration
    plan: Plan
    identity: Identity
    book: AddressBook
    role: Role
    telemetry: Telemetry
    host: Host
    relay: RelayService
    keeper: ReservationKeeper
    known: KnownPeers
    relays: RelayKeeper
    streams: KaspaStreams
    puncher: Puncher
    node: EmbeddedNode | None
    started_wall: float
    started: float
    discovery: Discovery | None = None
    metrics: Endpoint | None = None
    """Where metrics are served."""
    slots: list[ListeningSlot] = field(default_factory=list)


def compose(
    declaration: Declaration, plan: Plan, identity: Identity, book: AddressBook
) -> Appliance:
    """Everything that `declaration` asks for. No I/O but a look at the machine's addresses."""
    spec, caps, telemetry = declaration.bridge, plan.caps, Telemetry()
    rng = random.Random(os.urandom(16))
    role = decide_role(
        spec.relay_mode,
        external=spec.external,
        listen=spec.listen,
        interfaces=_interfaces(),
        # A node elsewhere says nothing about where we can be reached.
        node=None if declaration.node.kind == "remote" else declaration.node.p2p,
    )
    host = Host(
        identity,
        HostLimits(
            connections=caps.connections,
            connections_per_ip=caps.connections_per_ip,
            handshakes=caps.handshakes,
            punches=caps.punches,
            dials=caps.dials,
            dials_per_second=caps.dials_per_second,
        ),
        telemetry,
        external=role.reachable,
        allow_private=spec.dial_private,
        plane=PlaneLimits(
            connection_unread=caps.unread_bytes_per_connection,
            total_unread=caps.unread_bytes,
            assured=caps.unread_bytes_assured,
            connection_growth=caps.unread_bytes_per_connection,
            total_growth=caps.unread_bytes,
        ),
    )
    relay = RelayService(
        host,
        RelayLimits(
            reservations=caps.relay_reservations,
            reservations_per_ip=caps.relay_reservations_per_ip,
            circuits=caps.relay_circuits,
            circuits_per_peer=caps.relay_circuits_per_peer,
            reservation_seconds=spec.relay.reservation_duration,
            circuit_seconds=spec.relay.circuit_duration,
            circuit_bytes=spec.relay.circuit_bytes,
            circuit_bytes_per_second=caps.relay_circuit_bytes_per_second,
            relay_bytes_per_second=caps.relay_bytes_per_second,
        ),
    )
    limits = InboundLimits(caps.inbound_private, caps.per_relay_inbound, caps.unknown_relay_inbound)
    keeper = ReservationKeeper(host, rng)
    CircuitAcceptor(host, keeper.is_ours)
    known = KnownPeers(book, rng, TrioClock(), allow_private=spec.dial_private)
    pool = RelayPool(
        (Relay(relay.endpoint, relay.peer_id) for relay in spec.relays),
        own_id=identity.peer_id,
        most=plan.fds.reserved["relays"],
        wanted=declaration.discovery.relays_wanted,
        group=by_segment if spec.dial_private else by_network,
    )
    sources = [known.relays] if declaration.discovery.enabled else []
    appliance = Appliance(
        declaration=declaration,
        plan=plan,
        identity=identity,
        book=book,
        role=role,
        telemetry=telemetry,
        host=host,
        relay=relay,
        keeper=keeper,
        known=known,
        relays=RelayKeeper(host, keeper, pool, rng, *sources),
        streams=KaspaStreams(host, declaration.node.dial, limits),
        puncher=Puncher(host, rng),
        node=None,
        started_wall=time.time(),
        started=trio.current_time(),
    )
    appliance.slots += _declared_slots(appliance, rng)
    if declaration.discovery.enabled and not role.is_public:
        appliance.slots += _found_slots(appliance, rng)
    appliance.relays.on_tried.append(partial(_remember_relay, appliance))
    appliance.discovery = _discovery(appliance, rng)
    return appliance


def _discovery(appliance: Appliance, rng: random.Random) -> Discovery | None:
    declaration, node = appliance.declaration, appliance.declaration.node
    if not declaration.discovery.enabled:
        return None
    allow_private = declaration.bridge.dial_private

    def reach() -> Reach:
        at = Endpoint(node.p2p.host, appliance.streams.node.port)  # the port is the kernel's choice
        announced = appliance.host.announced()
        listener = node_listener(node.kind, at, announced, allow_private=allow_private)
        return reach_of(appliance.host, appliance.relay, appliance.keeper, listener)

    settings = settings_of(declaration, appliance.plan)
    found = Discovery(appliance.host, appliance.book, settings, reach, rng)
    appliance.keeper.on_outcome.append(found.reservation_changed)
    appliance.known.signed_ways = found.ways_to
    found.on_relays.append(appliance.relays.look_again)
    return found


def _declared_slots(appliance: Appliance, rng: random.Random) -> Iterator[Slot]:
    declaration, spec = appliance.declaration, appliance.declaration.bridge
    for index, peer in enumerate(spec.peers):
        yield Slot(
            SlotSpec(declaration.slot(index), peer.peer_id, _ways(peer, spec.relays)),
            appliance.host,
            appliance.streams,
            rng,
            direct_deadline=spec.direct_deadline,
        )


def _found_slots(appliance: Appliance, rng: random.Random) -> Iterator[BookSlot]:
    """Slots for peers that are found: what the plan has room for beyond the declared ones."""
    spec = appliance.declaration.bridge
    declared = list(appliance.slots)
    matchmaker = Matchmaker(
        PeerChoice(appliance.host.peer_id, (peer.peer_id for peer in spec.peers)),
        appliance.host,
        appliance.streams,
        rng,
        appliance.known.private_peers,
        declared=declared,
    )
    matchmaker.on_tried.append(partial(_remember_peer, appliance.book))
    found = found_slots(appliance.declaration, appliance.plan.caps.outbound_private)
    for index, where in found:
        yield BookSlot(
            index,
            where,
            appliance.host,
            appliance.streams,
            rng,
            matchmaker,
            direct_deadline=spec.direct_deadline,
        )


def _interfaces() -> list[str]:
    wanted = (trio.socket.AF_INET, trio.socket.AF_INET6)
    return [
        address.address.partition("%")[0]
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family in wanted
    ]


def _ways(peer: PrivatePeer, known: tuple[RelayAddress, ...]) -> tuple[Relay, ...]:
    relays = known if peer.via is None else (peer.via,)
    return tuple(Relay(relay.endpoint, relay.peer_id) for relay in relays)


def _remember_relay(appliance: Appliance, candidate: RelayCandidate, fault: Fault | None) -> None:
    """What a reservation made, or one that failed, says of the relay."""
    book, now, relay = appliance.book, time.time(), candidate.relay
    with _book_errors_logged():
        if not candidate.known_as and relay.peer_id is not None:
            where = str(RelayAddress(relay.endpoint, relay.peer_id))
            book.remember(
                PeerRecord(
                    relay.peer_id,
                    (where,),
                    is_relay=True,
                    last_seen=int(now),
                    source=Source.DECLARED,
                )
            )
            (book.record_failure if fault else book.record_success)(relay.peer_id, now)
        elif fault is None and relay.peer_id is not None:
            book.record_success(candidate.known_as, now)
            book.confirm_relay(candidate.known_as, relay.peer_id, now)
        elif fault is not None and fault.reason in NO_RELAY:
            book.deny_relay(candidate.known_as, now)
        elif fault is not None:
            book.record_failure(candidate.known_as, now)


def _remember_peer(book: AddressBook, peer: PeerCandidate, reached: bool) -> None:
    with _book_errors_logged():
        (book.record_success if reached else book.record_failure)(peer.known_as, time.time())


@contextmanager
def _book_errors_logged() -> Iterator[None]:
    """A full disk must not take the bridge down; what we would have noted is lost."""
    try:
        yield
    except ApplianceError as error:
        emit(_log, logging.ERROR, "book_write_failed", error=error.message)
