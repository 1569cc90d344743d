"""The book as it is shown: each address, its capability, and why it is or is not a candidate.

Reads a book that another process has open, through RocksDB's secondary mode: what the daemon
wrote until the moment of the question, without its lock and without changing a file of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from appliance.addresses.examining import GEOMETRY, NETWORK_KEY, check_metadata, corrupt
from appliance.addresses.fields import CodecError
from appliance.addresses.keys import KEY_SIZE, host_of, unpack
from appliance.addresses.migrations import SCHEMA, SCHEMA_KEY, UNDER_WAY
from appliance.addresses.model import Capability, source_of
from appliance.addresses.rocks import Store, StoreError
from appliance.addresses.rows import CORE, F_CLAIMED, F_CONFIRMED, F_PRIVATE, F_SIGNED, RANK
from appliance.addresses.values import (
    ADDRESS,
    PEER,
    decode_address,
    decode_ban,
    decode_capability,
)
from appliance.addresses.weights import JUST_TRIED, chance, is_terrible
from appliance.errors import ApplianceError
from appliance.network import Network


@dataclass(frozen=True, slots=True)
class Listed:
    """One address of the book, for people and for `--json`."""

    address: str
    who: str
    source: str
    first_heard: int
    heard: int
    success: int
    attempt: int
    failures: int
    tried: bool
    weight: float
    candidate: bool
    because: str
    relays: bool
    private: bool
    capability: Capability | None


def read(directory: Path, now: float) -> tuple[Network, list[Listed]]:
    """Everything in the book at `directory`. Raises ApplianceError if it cannot be read."""
    if not (directory / "CURRENT").exists():
        raise ApplianceError(
            f"there is no address book at {directory}",
            hint="name the declaration, or the state directory with --state DIR",
        )
    with tempfile.TemporaryDirectory(prefix="address-book-") as scratch:
        try:
            store = Store(directory, mode="follow", scratch=Path(scratch))
            try:
                return _network(store, directory), list(_listed(store, now))
            finally:
                store.close()
        except StoreError as error:
            raise corrupt(directory, str(error)) from None


def _network(store: Store, directory: Path) -> Network:
    found = store.get("metadata", NETWORK_KEY)
    schema = check_metadata(directory, None, store.get("metadata", SCHEMA_KEY), found)
    if schema < SCHEMA or store.get("metadata", UNDER_WAY) is not None:
        raise ApplianceError(
            f"the address book {directory} is still of version {schema}",
            hint="it is brought to this version when the appliance starts",
        )
    try:
        return Network((found or b"").decode("ascii", "replace"))
    except ValueError:
        raise corrupt(directory, "it is of no network that we know") from None


def _listed(store: Store, now: float) -> Iterator[Listed]:
    bans: dict[str, int] = {}
    for key, value in store.items("bans"):
        try:
            ban = decode_ban(key, value)
        except CodecError:
            continue
        bans[ban.subject] = ban.until
    geometry = (store.get("metadata", GEOMETRY) or b"").split(b" ")[0]
    new_buckets = int(geometry) if geometry.isdigit() else 0
    for key, value in store.items("addresses"):
        try:
            if len(key) != KEY_SIZE:
                continue
            said = decode_address(value)
            numbers = CORE.unpack(said.core)
            capability = _capability(store, key, said.peer_id, now)
            source = source_of(numbers[-1] & RANK)
        except (CodecError, ValueError):
            continue
        bucket, _, _, heard, success, attempt, expires, failures, flags = numbers
        rank = flags & RANK
        peer_id = said.peer_id or (capability.peer_id if capability is not None else "")
        banned = max(bans.get(host_of(key), 0), bans.get(peer_id, 0)) > now
        hopeless = is_terrible(heard, success, attempt, failures, rank, now)
        candidate, because = standing(
            flags, expires, attempt, failures, now, banned=banned, hopeless=hopeless
        )
        yield Listed(
            address=str(unpack(key)),
            who=said.who,
            source=source.value,
            first_heard=said.first_heard,
            heard=heard,
            success=success,
            attempt=attempt,
            failures=failures,
            tried=bucket >= new_buckets,
            weight=round(chance(success, attempt, failures, rank, now), 4),
            candidate=candidate,
            because=because,
            relays=bool(flags & (F_CLAIMED | F_SIGNED | F_CONFIRMED)),
            private=bool(flags & F_PRIVATE),
            capability=capability,
        )


def _capability(store: Store, key: bytes, peer_id: str, now: float) -> Capability | None:
    if peer_id:
        value = store.get("capabilities", PEER + peer_id.encode("ascii"))
        if value is not None:
            peer = decode_capability(value)
            if key in peer.addresses and peer.expires > now:
                return peer
    value = store.get("capabilities", ADDRESS + key)
    return None if value is None else decode_capability(value)


def standing(
    flags: int,
    expires: int,
    attempt: int,
    failures: int,
    now: float,
    *,
    banned: bool,
    hopeless: bool,
) -> tuple[bool, str]:
    """Whether an address is a candidate, as a relay if it says that it relays, and why."""
    if banned:
        return False, "banned"
    lapsed = expires <= now
    if flags & F_PRIVATE:
        if lapsed:
            return False, "private peer whose claim has lapsed"
        return True, "private peer, reached through its relay"
    if hopeless:
        return False, "hopeless: it goes when its place is wanted"
    if failures and now - attempt < JUST_TRIED:
        return True, "tried in vain a moment ago: hardly chosen for ten minutes"
    if flags & F_CONFIRMED and not lapsed:
        return True, "relay, proven by a connection"
    if flags & F_SIGNED and not lapsed:
        return True, "relay, by its own signature; not yet proven"
    if flags & F_CLAIMED and not lapsed:
        if flags & RANK == RANK:
            return True, "relay, declared by the operator"
        return True, "for a direct connection; a relay only once a connection proves it"
    if flags & (F_CONFIRMED | F_SIGNED | F_CLAIMED):
        return True, "for a direct connection; what it said of relaying has lapsed"
    return True, "for a direct connection"
