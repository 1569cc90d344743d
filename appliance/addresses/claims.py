"""What becomes of a claim: decisions about unsigned and signed ones, without any I/O.

Unsigned claims are hearsay: the first teller's stands until it lapses, repetition prolongs
nothing, and only a connection makes a relay of it. What the address itself says (it is connected
to us) replaces hearsay. Signed records are ordered by their sequence number.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from appliance.addresses.keys import host_of
from appliance.addresses.model import (
    NEVER_EXPIRES,
    Capability,
    Learned,
    Origin,
    RelayClaim,
    RelayRole,
    SignedClaim,
    Source,
)
from appliance.addresses.weights import DAY
from appliance.units import HOUR

DEFAULT_TTL: Final = 1 * HOUR  # of an unsigned claim that says none
MAX_TTL: Final = 6 * HOUR
QUIET: Final = DAY
"""A lapsed claim is not heard again for so long, unless the address itself makes it."""
MAX_SIGNED: Final = 7 * DAY
"""A signed record counts no longer, whatever it says of itself: its peer signs a newer one."""
CONFIRMED_FOR: Final = DAY
"""A connection proves that a peer relays; a day later it has to be proven again."""


def judge_unsigned(
    old: Capability | None, claim: RelayClaim, origin: Origin, now: int
) -> Capability | None:
    """What we hold of the address after `origin` claimed this; None for nothing."""
    own_word = origin.source is not Source.KASPAD and origin.who == host_of(claim.address)
    same = old is not None and old.who == origin.who
    if not (claim.is_relay or claim.is_private):
        if old is None or not (own_word or same):
            return old
        # Kept as lapsed, so that others' repetitions do not bring it back at once.
        return replace(old, expires=min(old.expires, now), confirmed=0)
    expires = int(now + min(claim.ttl or DEFAULT_TTL, MAX_TTL))
    if origin.source is Source.DECLARED:
        expires = NEVER_EXPIRES
    new = Capability(
        peer_id=claim.peer_id,
        relay_port=claim.relay_port,
        capacity=claim.capacity,
        role=RelayRole.PRIVATE if claim.is_private else RelayRole.PUBLIC,
        who=origin.who,
        heard=now,
        expires=expires,
        signed=False,
        hint=claim.hint,
    )
    if old is None or own_word or origin.source is Source.DECLARED:
        kept = old is not None and old.peer_id == new.peer_id
        return replace(new, confirmed=old.confirmed) if old is not None and kept else new
    if old.expires <= now:
        return new if now - old.expires >= QUIET else old
    if not same:
        return old
    return replace(new, heard=old.heard, expires=min(old.expires, expires), confirmed=old.confirmed)


def judge_signed(old: Capability | None, record: SignedClaim, now: int) -> Learned:
    """Whether a verified record tells us something."""
    if record.expires <= now:
        return Learned.EXPIRED
    if old is not None and old.signed:
        if record.seq < old.seq:
            return Learned.REPLAYED
        if record.seq == old.seq:
            return Learned.KNOWN
    if not (record.addresses or (record.role is RelayRole.PRIVATE and record.hint)):
        return Learned.WITHDRAWN
    return Learned.NEW if old is None or not old.signed else Learned.REPLACED


def accepted(old: Capability | None, record: SignedClaim, origin: Origin, now: int) -> Capability:
    """What we hold of the peer after that record. Proof stays only with the same addresses, and
    whoever told us of a peer first answers for it: nobody is charged for an update."""
    same = old is not None and set(old.addresses) == set(record.addresses)
    return Capability(
        peer_id=record.peer_id,
        relay_port=record.relay_port,
        capacity=record.capacity,
        role=record.role,
        who=old.who if old is not None and old.who else origin.who,
        heard=now,
        expires=min(record.expires, int(now + MAX_SIGNED)),
        signed=True,
        confirmed=old.confirmed if old is not None and same else 0,
        hint=record.hint,
        seq=record.seq,
        envelope=record.envelope,
        addresses=record.addresses,
    )
