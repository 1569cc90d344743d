"""Signed capability records: "this peer relays at these addresses until then".

The payload (proto/appliance_capability.proto) stands in a libp2p signed envelope, so anybody may
pass it on and nobody can change it. A newer record replaces an older one, an empty one withdraws
it, and none lives longer than its signer said: docs/adr/0011-signed-capability-records.md.

`sequence` is the time of issue in Unix milliseconds. One number thus orders a peer's records,
bounds their life, and needs no memory: a peer that lost its state goes on where its clock is.
"""

from __future__ import annotations

from collections.abc import Callable, Sized
from dataclasses import dataclass, replace
from typing import Final

from google.protobuf.message import DecodeError

from appliance.errors import RemoteProtocolError
from appliance.network import Endpoint, Network
from appliance.reasons import Reason
from appliance.units import HOUR, KIB, MINUTE
from appliance.wire import envelope, multiaddr, peer_ids
from appliance.wire.circuit import NO_LIMIT, Limit
from appliance.wire.envelope import Signer, Verify, verify_ed25519
from appliance.wire.pb import appliance_capability_pb2 as pb
from appliance.wire.ways import RelayWay, check_endpoint, check_way, encode_way, malformed

DOMAIN: Final = "kaspa-appliance-capability"
PAYLOAD_TYPE: Final = b"/kaspa-appliance/capability-record"
"""RFC 0002: a multicodec; a path, which begins with the code of namespaces, is one."""

MAX_RECORD: Final = 4 * KIB
"""Bytes of a sealed record. Eight relays over IPv6 make about 800."""
MAX_ADDRESSES: Final = 16
"""As the address book keeps of one peer."""
MAX_RELAYS: Final = 8
"""As the address book keeps of one peer."""
LIFETIME: Final = 2 * HOUR
"""What we say. Twice the reservation time of relays in the field: a dead one is soon forgotten."""
RENEW_AFTER: Final = LIFETIME / 2
"""Old enough to be replaced, young enough to survive an hour without anybody to tell."""
MAX_LIFETIME: Final = 6 * HOUR
"""What we believe. It also bounds how long a withdrawal must be remembered."""
MAX_SKEW: Final = 10 * MINUTE
"""How far a peer's clock may be ahead of ours: boards without a battery start wrong."""

Newest = Callable[[str], int]
"""Peer id → the greatest sequence that we have taken from it and not yet forgotten, or 0."""


@dataclass(frozen=True, slots=True)
class RelayOffer:
    """What a relay lends: reservations (0: not said), and the limit of one circuit."""

    capacity: int = 0
    limit: Limit = NO_LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class CapabilityRecord:
    """What a peer says of its own reach."""

    peer_id: str
    network: Network
    sequence: int  # Unix milliseconds when it was issued
    expires: int  # Unix milliseconds
    addresses: tuple[Endpoint, ...] = ()  # where it takes libp2p connections
    offer: RelayOffer | None = None  # what it lends there; None: it does not relay
    relays: tuple[RelayWay, ...] = ()  # through which it is reached; each with its peer id
    node: Endpoint | None = None  # its Kaspa P2P listener, if strangers can dial it

    @property
    def withdrawn(self) -> bool:
        """Whether it only takes back what was said before."""
        return not (self.addresses or self.relays or self.offer or self.node)

    @property
    def is_relay(self) -> bool:
        return self.offer is not None and bool(self.addresses)


def next_sequence(now: float, previous: int = 0) -> int:
    """For the next record of ours; `now` in Unix seconds, `previous` the one before, if any."""
    return max(_milliseconds(now), previous + 1)


def expiry(sequence: int, lifetime: float = LIFETIME) -> int:
    """The `expires` of a record that was issued at `sequence` and lives for `lifetime` seconds."""
    return sequence + _milliseconds(lifetime)


def withdrawal(peer_id: str, network: Network, sequence: int) -> CapabilityRecord:
    """Takes back all that the peer said before. It outlives every record that it replaces."""
    return CapabilityRecord(
        peer_id=peer_id,
        network=network,
        sequence=sequence,
        expires=expiry(sequence, MAX_LIFETIME),
    )


def forget_after(sequence: int) -> float:
    """Unix seconds until when a receiver must remember that `sequence` was there.

    From then on every older record has expired, so none can come back.
    """
    return expiry(sequence, MAX_LIFETIME) / 1000


def seal(record: CapabilityRecord, signer: Signer) -> bytes:
    """The signed envelope. Raises RemoteProtocolError for a record that nobody would take."""
    record = _checked(record)
    message = pb.CapabilityRecord(
        peer_id=signer.key.peer_id,
        sequence=record.sequence,
        expires=record.expires,
        network=record.network.wire_name,
        addresses=[multiaddr.encode(endpoint) for endpoint in record.addresses],
        relays=[encode_way(way) for way in record.relays],
    )
    if record.offer is not None:
        message.relay.SetInParent()
        message.relay.capacity = record.offer.capacity
        message.relay.circuit_seconds = record.offer.limit.seconds
        message.relay.circuit_bytes = record.offer.limit.data_bytes
    if record.node is not None:
        message.node = multiaddr.encode(record.node)
    if record.peer_id != peer_ids.to_text(signer.key.peer_id):
        raise RemoteProtocolError(Reason.BAD_SIGNATURE, "a record of somebody else")
    return envelope.seal(DOMAIN, PAYLOAD_TYPE, message.SerializeToString(), signer)


def unseal(
    data: bytes,
    *,
    now: float,
    network: Network,
    newest: Newest = lambda _: 0,
    verify: Verify = verify_ed25519,
) -> CapabilityRecord:
    """The record in an envelope from anybody, if it is to be believed at `now` (Unix seconds).

    The signature is checked last: what is stale, known or misshapen costs no cryptography.
    Raises RemoteProtocolError: message-too-large, malformed-message, too-many-addresses,
    wrong-network, record-from-future, record-expired, record-lives-too-long, record-superseded,
    bad-signature.
    """
    if len(data) > MAX_RECORD:
        raise RemoteProtocolError(Reason.MESSAGE_TOO_LARGE, f"a record of {len(data)} bytes")
    sealed = envelope.decode(data)
    if envelope.encode(sealed) != data:
        # Padding would make a forwarded record grow; one record has one encoding.
        raise malformed("an envelope with something else in it")
    if sealed.payload_type != PAYLOAD_TYPE:
        raise RemoteProtocolError(Reason.BAD_SIGNATURE, "an envelope of another type")
    message = pb.CapabilityRecord()
    try:
        message.ParseFromString(sealed.payload)
    except DecodeError as error:
        raise malformed(f"record: {error}") from None
    if message.peer_id != sealed.key.peer_id:
        raise RemoteProtocolError(Reason.BAD_SIGNATURE, "a record of somebody else")
    if message.network != network.wire_name:
        raise RemoteProtocolError(Reason.WRONG_NETWORK, f"a record for {message.network[:64]!r}")
    _check_times(message, now)
    record = _checked(_read(message, network))
    if record.sequence <= newest(record.peer_id):
        raise RemoteProtocolError(Reason.RECORD_SUPERSEDED, "as new a record is known")
    envelope.check(sealed, DOMAIN, verify)
    return record


def _check_times(message: pb.CapabilityRecord, now: float) -> None:
    if message.sequence > _milliseconds(now + MAX_SKEW):
        raise RemoteProtocolError(Reason.RECORD_FROM_FUTURE, "issued later than now")
    if message.expires <= _milliseconds(now):
        raise RemoteProtocolError(Reason.RECORD_EXPIRED, "it is over")


def _read(message: pb.CapabilityRecord, network: Network) -> CapabilityRecord:
    _bound(message.addresses, MAX_ADDRESSES, "addresses")
    _bound(message.relays, MAX_RELAYS, "relays")
    offer = None
    if message.HasField("relay"):
        limit = Limit(message.relay.circuit_seconds, message.relay.circuit_bytes)
        offer = RelayOffer(message.relay.capacity, limit)
    # Multiaddrs of kinds that we do not speak are skipped: a later version may know more.
    heard = (multiaddr.decode(raw) for raw in message.addresses)
    relays = (multiaddr.decode(raw) for raw in message.relays)
    node = multiaddr.decode(message.node) if message.node else None
    return CapabilityRecord(
        peer_id=peer_ids.to_text(message.peer_id),
        network=network,
        sequence=message.sequence,
        expires=message.expires,
        addresses=tuple(at.endpoint for at in heard if at is not None and at.peer_id is None),
        offer=offer,
        relays=tuple(
            RelayWay(way.endpoint, peer_ids.to_text(way.peer_id))
            for way in relays
            if way is not None and way.peer_id is not None
        ),
        node=None if node is None else node.endpoint,
    )


def _checked(record: CapabilityRecord) -> CapabilityRecord:
    """The same without repetitions. Raises RemoteProtocolError for what no honest peer signs."""
    if not 0 < record.expires - record.sequence <= _milliseconds(MAX_LIFETIME):
        raise RemoteProtocolError(Reason.RECORD_LIVES_TOO_LONG, f"more than {MAX_LIFETIME:.0f} s")
    _bound(record.addresses, MAX_ADDRESSES, "addresses")
    _bound(record.relays, MAX_RELAYS, "relays")
    for way in record.relays:
        if way.peer_id is None or way.peer_id == record.peer_id:
            raise malformed("a peer is reached through a relay with a peer id of its own")
    return replace(
        record,
        addresses=tuple(dict.fromkeys(map(check_endpoint, record.addresses))),
        relays=tuple(dict.fromkeys(map(check_way, record.relays))),
        node=None if record.node is None else check_endpoint(record.node),
    )


def _bound(items: Sized, most: int, what: str) -> None:
    if len(items) > most:
        raise RemoteProtocolError(Reason.TOO_MANY_ADDRESSES, f"more than {most} {what}")


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
