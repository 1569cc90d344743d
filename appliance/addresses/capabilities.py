"""The rows that say who can relay, and the flags in the tables that follow from them.

A row `a` + address holds the unsigned claim about it, a row `p` + peer id what that peer signed
or the operator declared. Which of them counts is decided here and kept as flags and an expiry in
the tables, from which addresses are chosen.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice
from typing import Final

from appliance.addresses.claims import CONFIRMED_FOR, QUIET, accepted, judge_signed, judge_unsigned
from appliance.addresses.fields import CodecError
from appliance.addresses.keys import from_text, is_synthetic, synthetic
from appliance.addresses.model import (
    NEVER_EXPIRES,
    Added,
    Capability,
    Learned,
    Origin,
    RelayClaim,
    RelayRole,
    SignedClaim,
    Source,
)
from appliance.addresses.rocks import Change, Store
from appliance.addresses.rows import F_CAPABLE, F_CLAIMED, F_CONFIRMED, F_SIGNED, RANK, RELAY
from appliance.addresses.tables import Tables
from appliance.addresses.values import (
    ADDRESS,
    PEER,
    AddressValue,
    decode_address,
    decode_capability,
    encode_address,
    encode_capability,
)

PEER_SHARE: Final = 4  # records of peers: at most a quarter of the entries
TELLER_SHARE: Final = 8  # and what peers of one network told us first, an eighth of these
LOOKED_AT: Final = 256  # of them, for one that makes room
_U32: Final = 0xFFFFFFFF


class Capabilities:
    """Reads and judges; changes are gathered in `changes`, for the book to write at once."""

    def __init__(self, store: Store, tables: Tables) -> None:
        self._store = store
        self._tables = tables
        self.peers = 0
        self._max_peers = max(64, tables.entries // PEER_SHARE)
        self._tellers: Counter[bytes] = Counter()
        for _, value in store.items("capabilities", PEER):
            self._count(_decoded(value), 1)
        self._swept = b""

    # --- reading

    def unsigned(self, key: bytes) -> Capability | None:
        """What is claimed of an address; None too if the row cannot be read."""
        return _decoded(self._store.get("capabilities", ADDRESS + key))

    def peer(self, peer_id: str) -> Capability | None:
        """What a peer signed, or the operator said of it."""
        return _decoded(self._store.get("capabilities", PEER + peer_id.encode("ascii")))

    def address(self, key: bytes) -> AddressValue | None:
        value = self._store.get("addresses", key)
        try:
            return None if value is None else decode_address(value)
        except CodecError:
            return None

    def best(self, key: bytes, now: float) -> Capability | None:
        """What counts of an address: the live signed record of its peer, else the claim."""
        said = self.address(key)
        if said is not None and said.peer_id:
            peer = self.peer(said.peer_id)
            if peer is not None and key in peer.addresses and peer.expires > now:
                return peer
        return self.unsigned(key)

    def relay_peers(self) -> int:
        """How many peers relay at the addresses that do; of very many addresses, these."""
        rows = self._tables.roles[RELAY]
        if len(rows) > LOOKED_AT:
            return len(rows)
        said = (self.address(self._tables.key(row)) for row in rows)
        return len({one.peer_id or number for number, one in enumerate(said) if one is not None})

    # --- learning

    def noted(self, peer: Capability, changes: list[Change]) -> None:
        """Enter what is known of a peer without its signature."""
        old = self.peer(peer.peer_id)
        if old is not None:
            self._count(old, -1)
        self._count(peer, 1)
        key = PEER + peer.peer_id.encode("ascii")
        changes.append(("capabilities", key, encode_capability(peer)))

    def learn_unsigned(
        self, claim: RelayClaim, origin: Origin, now: int, changes: list[Change]
    ) -> bool:
        """Judge a claim about an address that is in the tables; whether anything changed."""
        old = self.unsigned(claim.address)
        new = judge_unsigned(old, claim, origin, now)
        if new is None or new == old:
            return False
        changes.append(("capabilities", ADDRESS + claim.address, encode_capability(new)))
        row = self._tables.find(claim.address)
        flags = self._tables.flags[row]
        if not flags & (F_SIGNED | F_CONFIRMED):
            rank = max(flags & RANK, origin.source.rank)
            after = flags & F_CAPABLE & ~F_CLAIMED | rank
            after |= F_CLAIMED if new.expires > now else 0
            if not self._tables.has_room(row, after):
                changes.pop()  # enough of its network say so
                return False
            self._set(row, after, new.expires)
        return True

    def add_private(
        self, claim: RelayClaim, origin: Origin, now: int, changes: list[Change], tally: Added
    ) -> None:
        """Enter a private peer under the address that its id gives, whatever the claim says."""
        key = synthetic(claim.peer_id)
        relay = from_text(claim.hint)
        if (is_synthetic(claim.address) and claim.address != key) or relay is None:
            tally.not_routable += 1
            return
        trusted = origin.source is Source.DECLARED
        if self._tables.find(key) < 0:
            row, evicted = self._tables.add_private(
                key, relay, self._tables.teller(origin), now, trusted=trusted
            )
            if row < 0:
                tally.over_quota += 1
                return
            if evicted is not None:
                self.forget(evicted, changes)
            tally.added += 1
        else:
            tally.known += 1
        said = self.address(key)
        self.learn_unsigned(replace(claim, address=key), origin, now, changes)
        # Behind what was learned: the row says until when it counts.
        who, first_heard = (origin.who, now) if said is None else (said.who, said.first_heard)
        core = self._tables.core(self._tables.find(key))
        value = AddressValue(core, who, first_heard, claim.peer_id)
        changes.append(("addresses", key, encode_address(value)))

    def learn_signed(
        self, record: SignedClaim, origin: Origin, now: int, changes: list[Change]
    ) -> Learned:
        """Judge a record whose signature holds; its peer's older one gives way."""
        old = self.peer(record.peer_id)
        verdict = judge_signed(old, record, now)
        if verdict in (Learned.EXPIRED, Learned.REPLAYED, Learned.KNOWN):
            return verdict
        if old is None and not self._has_room_for(origin, now, changes):
            return Learned.FULL
        new = accepted(old, record, origin, now)
        wanted = dict.fromkeys(record.addresses)
        if record.role is RelayRole.PRIVATE:
            wanted = dict.fromkeys([synthetic(record.peer_id)] if record.hint else [])
        taken = tuple(key for key in wanted if self._take(key, new, origin, changes))
        if verdict is Learned.NEW and not taken:
            return Learned.FULL
        new = replace(new, addresses=taken)
        for key in old.addresses if old is not None else ():
            if key not in taken:
                self._release(key, record.peer_id, F_SIGNED | F_CONFIRMED, changes)
        if old is None:
            self._count(new, 1)
        key = PEER + record.peer_id.encode("ascii")
        changes.append(("capabilities", key, encode_capability(new)))
        return verdict

    def _has_room_for(self, origin: Origin, now: int, changes: list[Change]) -> bool:
        """Room for one more peer, if need be by letting one go of whose network told us most."""
        if self._tellers[self._tables.teller(origin)] >= max(16, self._max_peers // TELLER_SHARE):
            return False
        if self.peers < self._max_peers:
            return True
        loudest, _ = self._tellers.most_common(1)[0]
        for key, value in islice(self._store.items("capabilities", PEER), LOOKED_AT):
            found = _decoded(value)
            if found is None or found.expires <= now or self._teller(found) == loudest:
                self._let_go(key, found, changes)
                return True
        return False

    def _let_go(self, key: bytes, found: Capability | None, changes: list[Change]) -> None:
        """A peer's record; its addresses stay."""
        self._count(found, -1)
        changes.append(("capabilities", key, None))
        for address in found.addresses if found is not None else ():
            self._release(address, found.peer_id if found else "", F_SIGNED, changes)

    def _teller(self, peer: Capability | None) -> bytes:
        """The network of whoever told us of a peer first."""
        try:
            return b"" if peer is None else self._tables.teller(Origin(Source.GOSSIP, peer.who))
        except ValueError:
            return b""  # a row of an older book without that

    def _count(self, peer: Capability | None, change: int) -> None:
        self.peers += change
        teller = self._teller(peer)
        self._tellers[teller] += change
        if not self._tellers[teller]:
            del self._tellers[teller]

    def _take(self, key: bytes, new: Capability, origin: Origin, changes: list[Change]) -> bool:
        """Let a signed record have an address, unless another peer's live record has it."""
        tables = self._tables
        row = tables.find(key)
        first_heard, who = new.heard, origin.who
        if row < 0:
            if new.role is RelayRole.PRIVATE:
                relay = from_text(new.hint)
                if relay is None:
                    return False
                row, gone = tables.add_private(key, relay, tables.teller(origin), new.heard)
                evicted = [gone] if gone is not None else []
            else:
                _, evicted, _, _ = tables.add([key], tables.teller(origin), new.heard)
                row = tables.find(key)
            for other in evicted:
                self.forget(other, changes)
            if row < 0:
                return False
        elif (said := self.address(key)) is not None:
            first_heard, who = said.first_heard, said.who
            held = tables.flags[row] & (F_SIGNED | F_CONFIRMED) and tables.expires[row] > new.heard
            if held and said.peer_id != new.peer_id:
                return False
        flags = tables.flags[row] | F_SIGNED
        if not tables.has_room(row, flags):
            return False
        self._set(row, flags, max(new.expires, tables.expires[row] if flags & F_CONFIRMED else 0))
        value = AddressValue(tables.core(row), who, first_heard, new.peer_id)
        changes.append(("addresses", key, encode_address(value)))
        return True

    def confirm(self, key: bytes, peer_id: str, now: int, changes: list[Change]) -> bool:
        """A connection proved that `peer_id` relays at the address; False if we do not know it."""
        tables = self._tables
        row = tables.find(key)
        said = self.address(key)
        if row < 0 or said is None:
            return False
        flags = tables.flags[row]
        if said.peer_id != peer_id:
            flags &= ~F_SIGNED  # somebody else's record claimed the address
        rank = max(flags & RANK, Source.MET.rank)
        flags = flags & ~RANK & ~F_CLAIMED | rank | F_CONFIRMED
        if flags & RANK == Source.DECLARED.rank:
            flags |= F_CLAIMED
        if not tables.has_room(row, flags):
            # Proof is worth more than a signature: an unproven relay of the network gives way.
            if (other := tables.least_proven(tables.group[row])) < 0:
                return True
            self._release(tables.key(other), "", F_SIGNED | F_CLAIMED, changes)
        proven = int(now + CONFIRMED_FOR)
        self._set(row, flags, max(proven, tables.expires[row] if flags & F_SIGNED else 0))
        value = AddressValue(tables.core(row), said.who, said.first_heard, peer_id)
        changes.append(("addresses", key, encode_address(value)))
        for found, name in ((self.unsigned(key), ADDRESS + key), (self.peer(peer_id), b"")):
            if found is not None and found.peer_id in ("", peer_id):
                row_key = name or PEER + peer_id.encode("ascii")
                proof = encode_capability(replace(found, confirmed=now))
                changes.append(("capabilities", row_key, proof))
        return True

    def deny(self, key: bytes, now: int, changes: list[Change]) -> None:
        """A connection showed that nobody relays there: no claim about it counts any more."""
        row = self._tables.find(key)
        if row < 0 or self._tables.flags[row] & RANK == Source.DECLARED.rank:
            return
        claim = self.unsigned(key)
        if claim is not None:
            lapsed = replace(claim, expires=min(claim.expires, now), confirmed=0)
            changes.append(("capabilities", ADDRESS + key, encode_capability(lapsed)))
        self._release(key, "", F_SIGNED | F_CONFIRMED | F_CLAIMED, changes)

    def _release(self, key: bytes, peer_id: str, flags: int, changes: list[Change]) -> None:
        row, said = self._tables.find(key), self.address(key)
        if row < 0 or said is None or (peer_id and said.peer_id != peer_id):
            return
        self._set(row, self._tables.flags[row] & ~flags, 0)
        value = said._replace(core=self._tables.core(row), peer_id="")
        changes.append(("addresses", key, encode_address(value)))

    def _set(self, row: int, flags: int, expires: int) -> None:
        if flags & RANK == Source.DECLARED.rank:
            expires = NEVER_EXPIRES
        self._tables.expires[row] = min(expires, _U32)
        self._tables.set_flags(row, flags)

    # --- forgetting

    def forget(self, key: bytes, changes: list[Change]) -> None:
        """The rows of an address that left the tables. A peer's record lapses by itself."""
        changes.append(("addresses", key, None))
        changes.append(("capabilities", ADDRESS + key, None))

    def sweep(self, now: float, budget: int, changes: list[Change]) -> int:
        """Look at the next `budget` rows: lapsed ones go, and the flags that stood on them.

        How many went. A lapsed claim is remembered for `QUIET`, so that repeating it is of no use.
        """
        gone = looked = 0
        for key, value in self._store.items("capabilities", start=self._swept):
            if looked == budget:
                self._swept = key
                break
            looked += 1
            found = _decoded(value)
            if found is not None and found.expires + QUIET > now:
                continue
            gone += 1
            if key[:1] == PEER:
                self._let_go(key, found, changes)
                continue
            changes.append(("capabilities", key, None))
            if (row := self._tables.find(key[1:])) >= 0 and (
                self._tables.expires[row] <= now and self._tables.flags[row] & F_CLAIMED
            ):
                self._set(row, self._tables.flags[row] & ~F_CLAIMED, 0)
        else:
            self._swept = b""
        return gone


def _decoded(value: bytes | None) -> Capability | None:
    try:
        return None if value is None else decode_capability(value)
    except CodecError:
        return None
