"""Which private peer stands behind a slot that the declaration gives to nobody in particular.

Distinct peers through distinct relays: whoever runs one relay sees, delays or cuts one of our
outbound connections and no more.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from appliance.policy.relays import Relay
from appliance.policy.retries import Retries
from appliance.reasons import Reason
from appliance.units import MINUTE

PEER_FIRST: Final = MINUTE
PEER_CEILING: Final = 60 * MINUTE
"""For a peer that was given up: its record lives for two hours, so it is tried again once or
twice. Relay-capable kaspad tries a target again after 60 s."""
RELAY_FIRST: Final = MINUTE
RELAY_CEILING: Final = 10 * MINUTE
"""For a relay that could not be dialled, on whose account its peers are not blamed."""
UNSIGNED_FACTOR: Final = 0.1
"""Of the weight of a peer that only hearsay knows: it is chosen where signed ones are few."""


@dataclass(frozen=True, slots=True)
class PeerCandidate:
    """A private peer that might be dialled, and its relays."""

    peer_id: str
    relays: tuple[Relay, ...]
    signed: bool = False
    weight: float = 1.0
    known_as: bytes = b""
    """The address book's key, handed back."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A peer, and the one relay to reach it through."""

    peer: PeerCandidate
    relay: Relay


class PeerChoice:
    """Who stands behind which slot; slots are numbered by their caller.

    `declared` peers have slots of their own. Times are seconds on the monotonic clock.
    """

    def __init__(self, own_id: str, declared: Iterable[str] = ()) -> None:
        self.chosen: dict[int, Choice] = {}
        self._own_id = own_id
        self._never = frozenset((own_id, *declared))
        self._peers: Retries[str] = Retries(PEER_FIRST, PEER_CEILING)
        self._relays: Retries[Relay] = Retries(RELAY_FIRST, RELAY_CEILING)

    def choose(
        self,
        slot: int,
        now: float,
        candidates: Sequence[PeerCandidate],
        rng: random.Random,
        *,
        connected: Collection[str] = (),
        relays_in_use: Iterable[Relay] = (),
    ) -> Choice | Reason:
        """Somebody for a vacant slot, or why there is nobody.

        `connected` peers have a stream with us already; `relays_in_use` carry other slots.
        """
        in_use = [*relays_in_use, *(choice.relay for choice in self.chosen.values())]
        here = {choice.peer.peer_id for choice in self.chosen.values()}
        away = {*self._never, *connected, *here}
        reason = Reason.NO_CANDIDATE
        found: list[tuple[Choice, float]] = []
        for peer in candidates:
            if peer.peer_id in away or not peer.relays:
                continue
            if not self._peers.ready(peer.peer_id, now):
                reason = Reason.BACKING_OFF
                continue
            ways = [way for way in peer.relays if self._may_lead(way, peer, now)]
            free = [way for way in ways if not any(way.is_same(other) for other in in_use)]
            if free:
                weight = max(peer.weight, math.ulp(1.0)) * (1.0 if peer.signed else UNSIGNED_FACTOR)
                found.append((Choice(peer, rng.choice(free)), weight))
            else:
                reason = Reason.RELAYS_IN_USE if ways else Reason.BACKING_OFF
        if not found:
            return reason
        choices, weights = zip(*found, strict=True)
        choice: Choice = rng.choices(choices, weights)[0]
        self.chosen[slot] = choice
        return choice

    def reached(self, slot: int) -> None:
        """The peer of a slot answered."""
        if (choice := self.chosen.get(slot)) is not None:
            self._peers.succeeded(choice.peer.peer_id)
            self._relays.succeeded(choice.relay)

    def release(self, slot: int) -> None:
        """The slot is vacant again, and its peer was not to blame. Idempotent."""
        self.chosen.pop(slot, None)

    def give_up(self, slot: int, now: float, rng: random.Random, *, at_relay: bool) -> None:
        """The slot is vacant again: its peer failed, or already the relay did. Idempotent."""
        if (choice := self.chosen.pop(slot, None)) is None:
            return
        if at_relay:
            self._relays.failed(choice.relay, now, rng)
        else:
            self._peers.failed(choice.peer.peer_id, now, rng)

    def _may_lead(self, way: Relay, peer: PeerCandidate, now: float) -> bool:
        return way.peer_id not in (peer.peer_id, self._own_id) and self._relays.ready(way, now)
