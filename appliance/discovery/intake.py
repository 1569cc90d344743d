"""What strangers say, checked and entered: into the address book, and signed records on the shelf.

Nothing here waits or dials. A disk that refuses to write loses what was heard, and nothing else.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from appliance.addresses.keys import host_of, may_be_dialled, pack, synthetic
from appliance.addresses.model import (
    Added,
    Capability,
    Learned,
    Origin,
    RelayClaim,
    RelayRole,
    SignedClaim,
    Source,
)
from appliance.addresses.store import AddressBook
from appliance.discovery.counts import DiscoveryCounts
from appliance.discovery.shelf import Held, Shelf
from appliance.errors import ApplianceError, RemoteProtocolError
from appliance.events import emit
from appliance.network import Endpoint, Network
from appliance.policy.gossip import AnswerBudget
from appliance.reasons import Reason
from appliance.wire.capability import Claim, PublicClaim, read_claim, read_version
from appliance.wire.envelope import PublicKey, Verify, verify_ed25519
from appliance.wire.gossip import MAX_RECORDS
from appliance.wire.kaspa_messages import MAX_ADDRESSES_SENT, NetAddress, Version
from appliance.wire.records import CapabilityRecord, unseal
from appliance.wire.synthetic import can_be_dialled

RECORD_INTERVAL: Final = 1.0
"""Seconds in which one network may tell us one new record: a peer signs anew once in an hour."""
RECORD_BURST: Final = 4 * MAX_RECORDS
"""Four full answers at once: a start among strangers."""

_log: Final = logging.getLogger("appliance.discovery")


class Intake:
    """`allow_private`: addresses of private networks are taken, too. Times are Unix seconds."""

    def __init__(
        self,
        book: AddressBook,
        shelf: Shelf,
        counts: DiscoveryCounts,
        network: Network,
        own_id: str,
        *,
        allow_private: bool,
        verify: Verify = verify_ed25519,
    ) -> None:
        self.on_relays: list[Callable[[], None]] = []
        """Told when somebody is said to relay of whom that was not known."""
        self._book = book
        self._shelf = shelf
        self._counts = counts
        self._network = network
        self._own_id = own_id
        self._allow_private = allow_private
        self._verify = verify
        self._budget = AnswerBudget(RECORD_INTERVAL, RECORD_BURST)

    def endpoints(self, endpoints: Iterable[Endpoint], origin: Origin, now: float) -> None:
        """Plain addresses of Kaspa nodes."""
        keys = [pack(endpoint) for endpoint in endpoints if can_be_dialled(endpoint)]
        for start in range(0, len(keys), MAX_ADDRESSES_SENT):
            with self._sparing():
                self._count(self._book.add(keys[start : start + MAX_ADDRESSES_SENT], origin, now))

    def addresses(self, addresses: Iterable[NetAddress], origin: Origin, now: float) -> None:
        """What a Kaspa node passed on. An address with a claim that cannot be is left out."""
        plain: list[Endpoint] = []
        claims: list[RelayClaim] = []
        for address in addresses:
            try:
                claim = read_claim(address)
            except RemoteProtocolError:
                self._counts.addresses["malformed"] += 1
                continue
            if claim is None:
                plain.append(Endpoint(str(address.ip), address.port))
                continue
            if claim.peer_id == self._own_id:
                continue
            claims.append(_unsigned(claim))
            if not isinstance(claim, PublicClaim) and claim.node is not None:
                plain.append(claim.node)
        self.endpoints(plain, origin, now)
        self._claims(claims, origin, now)

    def version(self, version: Version, at: Endpoint | None, origin: Origin, now: float) -> None:
        """What a node that we spoke to says of itself; `at` is where we dialled it, if we did."""
        if at is not None:
            self.endpoints([at], origin, now)
        try:
            claim = read_version(version)
        except RemoteProtocolError:
            self._counts.addresses["malformed"] += 1
            return
        if claim is not None and claim.peer_id != self._own_id:
            self._claims([_unsigned(claim)], origin, now)
        elif claim is None and at is not None:
            # Whatever was claimed of it before: it does not say so itself.
            self._claims([RelayClaim(pack(at))], origin, now)

    def record(self, sealed: bytes, origin: Origin, now: float) -> Learned | None:
        """A signed record from anybody; None if it is not to be believed."""

        def verify(key: PublicKey, signature: bytes, message: bytes) -> bool:
            # The last thing that is looked at, and the only dear one.
            if self._budget.take(self._book.network_of(origin).hex(), now):
                raise RemoteProtocolError(Reason.TOO_MANY_RECORDS, "news faster than they happen")
            return self._verify(key, signature, message)

        try:
            record = unseal(
                sealed, now=now, network=self._network, newest=self._newest, verify=verify
            )
        except RemoteProtocolError as error:
            self._counts.records_rejected[error.reason] += 1
            return None
        if record.peer_id == self._own_id:
            return None
        verdict = Learned.BANNED
        if not self._book.is_banned(record.peer_id, now):
            with self._sparing():
                verdict = self._enter(record, sealed, origin, now)
        self._counts.records[verdict.value] += 1
        if record.is_relay and verdict in (Learned.NEW, Learned.REPLACED):
            self._tell()
        if verdict not in (Learned.BANNED, Learned.UNUSABLE):
            self._shelf.hold(Held(record, sealed, self._book.network_of(origin)), now)
        return verdict

    def remind(self, kept: Capability, now: float) -> None:
        """Put a record that the book kept on the shelf again, if it still holds."""
        try:
            record = unseal(
                kept.envelope,
                now=now,
                network=self._network,
                newest=self._shelf.newest,
                verify=self._verify,
            )
        except RemoteProtocolError:
            return
        teller = self._book.network_of(Origin(Source.GOSSIP, kept.who))
        self._shelf.hold(Held(record, kept.envelope, teller), now)

    # --- into the book

    def _enter(
        self, record: CapabilityRecord, sealed: bytes, origin: Origin, now: float
    ) -> Learned:
        keys = self._dialable(record.addresses) if record.is_relay else ()
        ways = [way for way in record.relays if not keys and self._dialable([way.endpoint])]
        held = self._book.capability(record.peer_id)
        verdict = Learned.WITHDRAWN if record.withdrawn else Learned.UNUSABLE
        if keys or ways or (held is not None and held.signed):
            hint = str(ways[0]) if ways else ""
            verdict = self._book.learn_signed(_signed(record, keys, hint, sealed), origin, now)
        if record.node is not None:
            self.endpoints([record.node], origin, now)
        if not ways and (address := synthetic(record.peer_id)) in self._book:
            # Its own word, against what others say of how it is reached.
            own_word = Origin(Source.GOSSIP, host_of(address))
            self._book.learn_claims([RelayClaim(address)], own_word, now)
        return verdict

    def _claims(self, claims: list[RelayClaim], origin: Origin, now: float) -> None:
        if not claims:
            return
        before = self._book.counts()["claimed"]
        with self._sparing():
            self._count(self._book.learn_claims(claims[:MAX_ADDRESSES_SENT], origin, now))
        if self._book.counts()["claimed"] > before:
            self._tell()

    def _tell(self) -> None:
        for listener in self.on_relays:
            listener()

    def _dialable(self, endpoints: Iterable[Endpoint]) -> tuple[bytes, ...]:
        keys = (pack(endpoint) for endpoint in endpoints)
        return tuple(key for key in keys if may_be_dialled(key, allow_private=self._allow_private))

    def _newest(self, peer_id: str) -> int:
        known = self._book.capability(peer_id)
        kept = known.seq if known is not None and known.signed else 0
        return max(kept, self._shelf.newest(peer_id))

    def _count(self, added: Added) -> None:
        for what, count in dataclasses.asdict(added).items():
            self._counts.addresses[what] += count

    @contextmanager
    def _sparing(self) -> Iterator[None]:
        """A full or dying disk must not take the bridge down; what we would have noted is lost."""
        try:
            yield
        except ApplianceError as error:
            self._counts.book_faults += 1
            emit(_log, logging.ERROR, "book_write_failed", error=error.message)


def _unsigned(claim: Claim) -> RelayClaim:
    ttl = max(1, int(claim.lifetime))
    if isinstance(claim, PublicClaim):
        return RelayClaim(
            pack(claim.node),
            relay_port=claim.relay_port,
            capacity=claim.capacity,
            ttl=ttl,
            role=RelayRole.PUBLIC,
            peer_id=claim.peer_id or "",
        )
    return RelayClaim(
        synthetic(claim.peer_id),
        ttl=ttl,
        role=RelayRole.PRIVATE,
        peer_id=claim.peer_id,
        hint="" if claim.via is None else str(claim.via),
    )


def _signed(
    record: CapabilityRecord, keys: tuple[bytes, ...], hint: str, sealed: bytes
) -> SignedClaim:
    return SignedClaim(
        peer_id=record.peer_id,
        seq=record.sequence,
        expires=record.expires // 1000,
        addresses=keys,
        envelope=sealed,
        capacity=0 if record.offer is None else record.offer.capacity,
        role=RelayRole.PRIVATE if hint else RelayRole.PUBLIC,
        hint=hint,
    )
