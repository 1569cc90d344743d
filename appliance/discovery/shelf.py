"""Signed records at hand, to be passed on: the newest of each peer, bounded, in memory.

The address book keeps them over a restart; here they are unsealed and chosen from. Times are Unix
seconds.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from appliance.network import Endpoint
from appliance.policy.gossip import diverse
from appliance.wire.gossip import Ask, Wanted
from appliance.wire.records import CapabilityRecord
from appliance.wire.ways import RelayWay

MAX_HELD: Final = 1024
"""Records; ordinary ones of 300 bytes make half a megabyte with all that is around them."""
TELLER_SHARE: Final = 8
"""One network may tell us at most 1/8 of them."""


@dataclass(frozen=True, slots=True)
class Held:
    """A record whose signature holds, and the network of whoever told us."""

    record: CapabilityRecord
    sealed: bytes = field(repr=False)
    teller: bytes

    @property
    def expires(self) -> float:
        return self.record.expires / 1000


class Shelf:
    """At most `most` records. A withdrawal is a record, too: nothing older comes back over it."""

    def __init__(
        self, most: int = MAX_HELD, *, network: Callable[[Endpoint], bytes] | None = None
    ) -> None:
        """`network`: what those addresses share that count like one; their prefix if it is None."""
        self._most = most
        self._network_of = network or prefix_of
        self._held: dict[str, Held] = {}  # the longest held first
        self._tellers: Counter[bytes] = Counter()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, peer_id: str, now: float) -> Held | None:
        held = self._held.get(peer_id)
        return held if held is not None and held.expires > now else None

    def newest(self, peer_id: str) -> int:
        """The sequence number that a record of the peer must exceed to be news; 0: any is."""
        held = self._held.get(peer_id)
        return 0 if held is None else held.record.sequence

    def hold(self, held: Held, now: float) -> bool:
        """Put a newer record in the place of its peer's older one; False if there is no room."""
        peer_id = held.record.peer_id
        old = self._held.get(peer_id)
        if old is None and not self._has_room(held.teller, now):
            return False
        if old is not None:
            # Whoever told us of a peer first answers for it: nobody is charged for an update.
            self._drop(peer_id)
            held = Held(held.record, held.sealed, old.teller)
        self._held[peer_id] = held
        self._tellers[held.teller] += 1
        return True

    def relays(self, now: float) -> list[Held]:
        return [held for held in self._live(now) if held.record.is_relay]

    def private(self, now: float) -> list[Held]:
        return [held for held in self._live(now) if held.record.relays]

    def ways_to(self, peer_id: str, now: float) -> tuple[RelayWay, ...]:
        """Relays through which the peer says it is reached; none if nothing is known."""
        held = self.get(peer_id, now)
        return () if held is None else held.record.relays

    def choose(self, ask: Ask, asker: str, now: float, rng: random.Random) -> list[bytes]:
        """What to answer: those asked for by name, then a random choice of many networks.

        Never the asker's own record.
        """
        named = [held for peer_id in ask.peers if (held := self.get(peer_id, now)) is not None]
        pools = {Wanted.RELAYS: (self.relays,), Wanted.PRIVATE: (self.private,)}
        kinds = pools.get(ask.wanted, (self.relays, self.private))
        drawn = [diverse(kind(now), ask.limit, self._network, rng) for kind in kinds]
        rows = [held for row in _in_turn(drawn) for held in row]
        chosen = {held.record.peer_id: held.sealed for held in (*named, *rows)}
        chosen.pop(asker, None)
        return list(chosen.values())[: ask.limit]

    def latest(self, count: int, now: float) -> list[bytes]:
        """What was heard last, newest first: something to tell with a question."""
        found: list[bytes] = []
        for held in reversed(self._held.values()):
            if len(found) == count:
                break
            if held.expires > now:
                found.append(held.sealed)
        return found

    def _network(self, held: Held) -> bytes:
        """Of a relay its own, of a private peer that of its first relay."""
        record = held.record
        at = record.addresses[0] if record.addresses else record.relays[0].endpoint
        return self._network_of(at)

    def _live(self, now: float) -> Iterator[Held]:
        return (held for held in self._held.values() if held.expires > now)

    def _has_room(self, teller: bytes, now: float) -> bool:
        full = len(self._held) >= self._most
        if full or self._tellers[teller] >= self._most // TELLER_SHARE:
            for peer_id in [one for one, held in self._held.items() if held.expires <= now]:
                self._drop(peer_id)
        if self._tellers[teller] >= self._most // TELLER_SHARE:
            return False
        if len(self._held) >= self._most:
            loudest, _ = self._tellers.most_common(1)[0]
            oldest = next(one for one, held in self._held.items() if held.teller == loudest)
            self._drop(oldest)
        return True

    def _drop(self, peer_id: str) -> None:
        teller = self._held.pop(peer_id).teller
        self._tellers[teller] -= 1
        if not self._tellers[teller]:
            del self._tellers[teller]


def prefix_of(endpoint: Endpoint) -> bytes:
    """What an attacker has to pay for: IPv4's /16, IPv6's /32."""
    packed = ip_address(endpoint.host).packed
    return packed[:2] if len(packed) == 4 else packed[:4]


def _in_turn(rows: list[list[Held]]) -> Iterable[list[Held]]:
    for place in range(max(map(len, rows), default=0)):
        yield [row[place] for row in rows if place < len(row)]
