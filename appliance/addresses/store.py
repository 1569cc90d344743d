"""The address book on disk: `AddressBook`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from appliance.addresses.held import HeldBook
from appliance.addresses.keys import from_text, pack, pack_ip, unpack
from appliance.addresses.model import (
    NEVER_EXPIRES,
    Added,
    Ban,
    Capability,
    Learned,
    Origin,
    PeerRecord,
    RelayClaim,
    RelayRole,
    SignedClaim,
    Source,
    Want,
)
from appliance.addresses.records import live_records
from appliance.addresses.rocks import Change
from appliance.addresses.rows import CORE, DERIVED, F_CLAIMED, F_CONFIRMED, RANK
from appliance.addresses.selection import pick, weigh
from appliance.addresses.values import (
    HEAD,
    address_tail,
)
from appliance.network import Endpoint
from appliance.units import HOUR

REFRESH: Final = 20 * HOUR
"""An address that is heard of again is written anew no sooner: cards wear out."""
SWEEP: Final = 256  # rows looked at in one call


@dataclass(frozen=True, slots=True)
class Candidate:
    """An address to try, and what is known of it."""

    address: bytes
    endpoint: Endpoint
    tried: bool
    weight: float
    capability: Capability | None


class AddressBook(HeldBook):
    """Addresses of one network and who of them can relay, at most `StoreOptions.entries`.

    All methods are synchronous, and one thread at a time may call them. `open`, `close` and `sync`
    block on the disk: run them in a thread. The others take microseconds for each address and are
    meant for the event loop; a full or dying disk raises ApplianceError. Each call is one atomic
    batch: a process that is killed loses nothing it was told, a loss of power what came after the
    last `sync`, and in no case the book. Times are Unix seconds.
    """

    def counts(self) -> dict[str, int]:
        """How many entries, tried ones, peers that relay, claims, private peers, records, bans."""
        _, claimed, private = map(len, self._tables.roles)
        with self._reporting("read"):
            relays = self._caps.relay_peers()
        return {
            "entries": len(self._tables),
            "tried": len(self._tables.tried),
            "relays": relays,
            "claimed": claimed,
            "private": private,
            "peers": self._caps.peers,
            "bans": len(self._bans),
        }

    # --- learning

    def add(self, addresses: Iterable[bytes], origin: Origin, now: float) -> Added:
        """Enter what `origin` told us: keys from `keys.pack`, in one batch. Bound it to a message's
        1,000: quotas bound what stays."""
        tables, when = self._tables, int(now)
        if self._bans:
            given = list(addresses)
            allowed = [key for key in given if not self._bans.holds_ip(key, now)]
            banned, addresses = len(given) - len(allowed), allowed
        else:
            banned = 0
        rank, trusted = origin.source.rank, origin.source is Source.DECLARED
        placed, evicted, known, tally = tables.add(
            addresses, tables.teller(origin), when, rank=rank, trusted=trusted
        )
        tally.banned = banned
        value = b""
        if placed:
            core = CORE.pack(DERIVED, 0, tables.source[-1], when, 0, 0, 0, 0, rank)
            value = HEAD + core + address_tail(origin.who, when)
        gone: list[Change] = []
        for key in evicted:
            self._caps.forget(key, gone)
        stale = []
        for key in known:
            row = tables.find(key)  # -1 if it was evicted meanwhile
            if row >= 0 and when - tables.heard[row] > REFRESH:
                tables.heard[row] = when
                stale.append(key)
        with self._reporting("written"):
            if placed or evicted:
                note = self._notes.about(placed, evicted)
                self._store.put_alike("addresses", placed, value, evicted, note)
        self._write([*gone, *self._rows(stale)])
        return tally

    def learn_claims(self, claims: Iterable[RelayClaim], origin: Origin, now: float) -> Added:
        """Enter addresses with what an unsigned message says of their relays; private peers under
        their synthetic addresses. Claims of a relay await a connection: `confirm_relay`."""
        when, claims = int(now), list(claims)
        public = [claim for claim in claims if not claim.is_private]
        tally = self.add((claim.address for claim in public), origin, now)
        changes: list[Change] = []
        for claim in claims:
            if self._bans.holds_ip(claim.address, now) or self._bans.holds_peer(claim.peer_id, now):
                tally.banned += claim.is_private
            elif claim.is_private:
                self._caps.add_private(claim, origin, when, changes, tally)
            elif claim.address in self and (
                self._caps.learn_unsigned(claim, origin, when, changes)
            ):
                changes += self._rows([claim.address])
        self._write(changes)
        return tally

    def learn_signed(self, record: SignedClaim, origin: Origin, now: float) -> Learned:
        """Enter a signed record whose signature and peer id were verified."""
        if self._bans.holds_peer(record.peer_id, now) or any(
            self._bans.holds_ip(key, now) for key in record.addresses
        ):
            return Learned.BANNED
        changes: list[Change] = []
        verdict = self._caps.learn_signed(record, origin, int(now), changes)
        self._write(changes)
        return verdict

    def remember(self, record: PeerRecord) -> bool:
        """Enter a peer that the operator declared or that we met; False if it has no address that
        we can keep."""
        keys = [key for text in record.addresses if (key := from_text(text)) is not None]
        origin = Origin(record.source, record.source.value)
        self.add(keys, origin, record.last_seen)
        kept = tuple(dict.fromkeys(key for key in keys if key in self))
        if not kept:
            return False
        tables, changes = self._tables, list[Change]()
        declared = record.source is Source.DECLARED
        old = self._caps.peer(record.peer_id)
        for key in kept:
            row = tables.find(key)
            flags = tables.flags[row] & ~RANK
            rank = max(tables.flags[row] & RANK, record.source.rank)
            tables.set_flags(row, flags | rank | (F_CLAIMED if record.is_relay else 0))
            if declared:
                tables.expires[row] = NEVER_EXPIRES
            tail = address_tail(origin.who, record.last_seen, record.peer_id)
            changes.append(("addresses", key, HEAD + tables.core(row) + tail))
        if old is None or not old.signed:
            peer = Capability(
                peer_id=record.peer_id,
                relay_port=int.from_bytes(kept[0][16:], "big") if record.is_relay else 0,
                capacity=0,
                role=RelayRole.PUBLIC if record.is_relay else RelayRole.UNSPECIFIED,
                who=origin.who,
                heard=record.last_seen,
                expires=NEVER_EXPIRES if declared else int(record.last_seen + REFRESH),
                signed=False,
                confirmed=old.confirmed if old is not None else 0,
                addresses=kept,
            )
            self._caps.noted(peer, changes)
        self._write(changes)
        return True

    # --- experience

    def record_success(self, who: bytes | str, now: float) -> bytes | None:
        """We reached an address, or a peer by its id, at `now`.

        If its place among the tried is taken: the address of whoever has it, to be tested first
        (`settle` decides). Unknown ones are ignored.
        """
        challenged = None
        for key in (keys := self._keys(who)):
            challenged = self._tables.succeeded(self._tables.find(key), int(now)) or challenged
        changes = self._rows(keys)
        if isinstance(who, str):
            for key in keys:
                if self._tables.flags[self._tables.find(key)] & (F_CLAIMED | F_CONFIRMED):
                    self._caps.confirm(key, who, int(now), changes)
        self._write(changes)
        return challenged

    def record_failure(self, who: bytes | str, now: float) -> None:
        """We tried in vain to reach an address, or a peer by its id. Unknown ones are ignored."""
        for key in (keys := self._keys(who)):
            self._tables.attempted(self._tables.find(key), int(now))
        self._write(self._rows(keys))

    def confirm_relay(self, address: bytes, peer_id: str, now: float) -> bool:
        """A connection proved that the peer relays there: it counts for a day. False if unknown."""
        changes: list[Change] = []
        if not self._caps.confirm(address, peer_id, int(now), changes):
            return False
        self._write(changes)
        return True

    def deny_relay(self, address: bytes, now: float) -> None:
        """A connection showed that nobody relays there, or somebody else than was claimed."""
        changes: list[Change] = []
        self._caps.deny(address, int(now), changes)
        self._write(changes)

    def settle(self, now: float) -> list[bytes]:
        """Decide the challenges for places among the tried; who is still to be tested."""
        changed = self._tables.settle(now)
        self._write(self._rows(changed))
        return [incumbent for incumbent, _ in self._tables.collisions.values()]

    def expire(self, now: float, budget: int = SWEEP) -> int:
        """Look at the next `budget` capability rows and take lapsed ones out; how many went."""
        changes: list[Change] = []
        gone = self._caps.sweep(now, budget, changes)
        changes += self._bans.expire(now)
        self._write(changes)
        return gone

    def forget(self, address: bytes) -> bool:
        """Take an address out of the book; False if it was not there."""
        row = self._tables.find(address)
        if row < 0:
            return False
        self._tables.discard(row)
        changes: list[Change] = []
        self._caps.forget(address, changes)
        self._write(changes)
        return True

    # --- bans

    def ban_ip(self, host: str, until: float, reason: str = "") -> None:
        """Refuse an IP address and forget what the book has of it. ValueError if it is none."""
        octets = pack_ip(host)
        with self._reporting("read"):
            known = [key for key, _ in self._store.items("addresses", octets)]
        for key in known:
            self.forget(key)
        self._write(self._bans.ban_ip(octets, Ban(host, int(until), reason)))

    def ban_peer(self, peer_id: str, until: float, reason: str = "") -> None:
        """Refuse a peer by its id, wherever it is. ValueError if that is no id."""
        self._write(self._bans.ban_peer(Ban(peer_id, int(until), reason)))

    def unban(self, subject: str) -> bool:
        """Lift the ban of an IP address or a peer id; False if there was none."""
        changes = self._bans.lift(subject)
        self._write(changes)
        return bool(changes)

    def is_banned(self, subject: bytes | str, now: float) -> bool:
        """An address, or a peer by its id."""
        if isinstance(subject, bytes):
            return self._bans.holds_ip(subject, now)
        return self._bans.holds_peer(subject, now)

    def bans(self) -> list[Ban]:
        return self._bans.all()

    # --- choosing and looking

    def select(
        self,
        count: int,
        now: float,
        rng: Random,
        want: Want = Want.DIRECT,
        *,
        avoid: Collection[bytes] = (),
    ) -> list[Candidate]:
        """At most `count` addresses to try, no two of one network, none of a network that an
        address in `avoid` is of. Costs the same however large the book is."""
        tables, found = self._tables, list[Candidate]()
        groups = {tables.group_hash(key) for key in avoid}
        refused: set[int] = set()
        while len(found) < count:
            row = pick(tables, now, rng, want, avoid=groups, refused=refused)
            if row < 0:
                break
            refused.add(row)
            key = tables.key(row)
            capability = None
            if tables.flags[row] & ~RANK:
                with self._reporting("read"):
                    capability = self._caps.best(key, now)
            peer_id = capability.peer_id if capability is not None else ""
            if self._bans.holds_ip(key, now) or self._bans.holds_peer(peer_id, now):
                continue
            groups.add(tables.group[row])
            weight = weigh(tables, row, now, want)
            found.append(Candidate(key, unpack(key), tables.is_tried(row), weight, capability))
        return found

    def capability(self, who: bytes | str, now: float = 0) -> Capability | None:
        """What is known of an address or of a peer id; of an address, what counts at `now`."""
        with self._reporting("read"):
            return self._caps.peer(who) if isinstance(who, str) else self._caps.best(who, now)

    def addresses(self, prefix: bytes = b"") -> Iterator[bytes]:
        """All addresses under a prefix of their keys, in order."""
        with self._reporting("read"):
            for key, _ in self._store.items("addresses", prefix):
                yield key

    def records(self, now: float, rng: Random, most: int) -> list[Capability]:
        """At most so many signed records that still hold, to hand on: from anywhere on."""
        with self._reporting("read"):
            return live_records(self._store, now, rng, most)

    def network_of(self, who: Origin | Endpoint) -> bytes:
        """What counts as one, as it is cheap to have many of it: the autonomous system if it is
        known, else the prefix; of a teller that has a name, the name."""
        if isinstance(who, Endpoint):
            return self._tables.network_of(pack(who))
        return self._tables.teller(who)

    def _keys(self, who: bytes | str) -> list[bytes]:
        if isinstance(who, bytes):
            return [who] if who in self else []
        with self._reporting("read"):
            peer = self._caps.peer(who)
        return [key for key in peer.addresses if key in self] if peer is not None else []
