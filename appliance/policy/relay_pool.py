"""At which relays we hold reservations: declared ones, then the best of what is known.

```
            Keep             reserved                  Drop
 candidate ──────► asking ──────────────► held ──────────────────► (gone)
                     │ failed               │ failed: asks again      ▲
                     └──────────────────────┴─ unhealthy: replaced ───┘
```

Decisions only: the shell (`bridge.relay_keeper`) performs them and tells what came of them. How
long a relay has served does not make it better: where it does, all end up on the oldest relay.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from appliance.network import Endpoint
from appliance.policy.netgroup import Grouping, by_network
from appliance.policy.relays import Decision, Drop, Keep, Relay, RelayCandidate, Wait
from appliance.policy.retries import Retries
from appliance.reasons import Reason
from appliance.units import HOUR, MINUTE

WANTED: Final = 3
"""Reservations: one may be lost and one rotated, and there is still a way in (go-libp2p: 2)."""
ROTATE_EVERY: Final = 45 * MINUTE
"""Between two rotations, on average (relay-capable kaspad's figure)."""
ROTATE_JITTER: Final = 0.2
"""Share of that, either way: appliances that started together do not move together."""
RETRY_ROTATION: Final = 5 * MINUTE
"""After a rotation that found nobody as good, or whose newcomer refused us."""
LOOK_AGAIN: Final = 10.0
"""Seconds between looks for candidates while relays are lacking and nobody brings news."""
BACKOFF_FIRST: Final = MINUTE
BACKOFF_CEILING: Final = HOUR
"""For a relay that was given up: go-libp2p waits an hour, relay-capable kaspad at most 10 min."""
MISSES: Final = 2
"""Failures in a row after which one that had served counts as gone: it may have been restarted,
and is asked again once. One that never served has no such credit."""
LOSSES: Final = 3
LOSS_WINDOW: Final = HOUR
"""So many lost connections within that time are no relay to depend on, though it comes back."""
UNPROVEN: Final = 0.5
"""Score of a relay that only hearsay knows; one that signed or served begins at 1."""
FAILURE_FACTOR: Final = 0.5
MOST_FAILURES: Final = 4
"""Counted no further: no score falls below a sixteenth of what it began with."""


Suits = Callable[[RelayCandidate], bool]


@dataclass(slots=True)
class Member:
    """A relay that we keep, or try to."""

    candidate: RelayCandidate
    declared: bool
    held_since: float | None = None
    """When the reservation began that stands now."""
    has_served: bool = False
    misses: int = 0
    losses: list[float] = field(default_factory=list)
    failure: Reason | None = None
    replaces: Endpoint | None = None
    """The one that goes once this one is reserved."""

    @property
    def relay(self) -> Relay:
        return self.candidate.relay

    @property
    def unhealthy(self) -> bool:
        return self.misses >= (MISSES if self.has_served else 1)

    def is_unstable(self, now: float) -> bool:
        return sum(now - lost < LOSS_WINDOW for lost in self.losses) >= LOSSES


class RelayPool:
    """The relays that we keep. Times are seconds on the monotonic clock.

    `declared` ones are always kept. Others fill up to `wanted` that work, with never more than
    `most` in all (the plan's files for relays) unless more are declared.
    """

    def __init__(
        self,
        declared: Iterable[Relay],
        *,
        own_id: str,
        most: int,
        wanted: int = WANTED,
        group: Grouping = by_network,
    ) -> None:
        self.members: dict[Endpoint, Member] = {}
        self.wanted = min(wanted, most)
        self._declared = tuple(dict.fromkeys(declared))
        self._own_id = own_id
        self._most = most
        self._group = group
        self._retries: Retries[Endpoint] = Retries(BACKOFF_FIRST, BACKOFF_CEILING)
        self._rotate_at: float | None = None

    # --- what happened

    def met(self, endpoint: Endpoint, peer_id: str) -> bool:
        """It turned out who is there; False: ourselves, or a relay that we keep already."""
        found = Relay(endpoint, peer_id)
        others = [m for at, m in self.members.items() if at != endpoint]
        if peer_id == self._own_id or any(found.is_same(other.relay) for other in others):
            return False
        if (member := self.members.get(endpoint)) is not None:
            member.candidate = replace(member.candidate, relay=found)
        return True

    def reserved(self, endpoint: Endpoint, now: float) -> None:
        """The relay granted a reservation, or renewed it. Unknown ones are ignored."""
        if (member := self.members.get(endpoint)) is None:
            return
        if member.held_since is None:
            member.held_since = now
        member.has_served, member.misses, member.failure = True, 0, None
        self._retries.succeeded(endpoint)

    def failed(self, endpoint: Endpoint, reason: Reason, now: float, rng: random.Random) -> None:
        """An attempt to reserve failed, or the reservation was lost. Unknown ones are ignored."""
        if (member := self.members.get(endpoint)) is None:
            return
        if member.held_since is not None:
            member.losses = [*member.losses[1 - LOSSES :], now]
        member.held_since, member.failure = None, reason
        member.misses += 1
        if not member.declared:
            self._retries.failed(endpoint, now, rng)

    # --- what to do

    def decide(
        self, now: float, candidates: Sequence[RelayCandidate], rng: random.Random
    ) -> list[Decision]:
        """What to do now, in that order, as if it were done; the last is a `Wait`."""
        decisions: list[Decision] = []
        for relay in self._declared:
            if relay.endpoint not in self.members:
                self._keep(RelayCandidate(relay, proven=True), Reason.DECLARED, decisions)
        self._end_rotations(now, rng, decisions)
        self._shed(decisions)
        self._fill(now, candidates, rng, decisions)
        self._rotate(now, candidates, rng, decisions)
        decisions.append(self._wait(now))
        return decisions

    def score(self, candidate: RelayCandidate, now: float) -> float:
        """From 0 to 1: what we think of a relay, whether we keep it or not."""
        failures = min(self._retries.failures(candidate.relay.endpoint, now), MOST_FAILURES)
        member = self.members.get(candidate.relay.endpoint)
        proven = candidate.proven or (member is not None and member.has_served)
        return (1.0 if proven else UNPROVEN) * FAILURE_FACTOR**failures

    def _end_rotations(self, now: float, rng: random.Random, decisions: list[Decision]) -> None:
        for endpoint, member in list(self.members.items()):
            if member.replaces is None:
                continue
            old = self.members.get(member.replaces)
            if old is None or old.held_since is None:
                member.replaces = None  # nothing to spare any more: it stands for itself
            elif member.held_since is not None:
                # What could not be depended on is not to come back at once.
                if old.is_unstable(now):
                    self._retries.failed(member.replaces, now, rng)
                self._drop(member.replaces, Reason.RELAY_ROTATION, decisions)
                member.replaces = None
                self._rotate_at = now + self._interval(rng)
            elif member.unhealthy:
                self._drop(endpoint, member.failure or Reason.NO_PATH, decisions)
                self._rotate_at = now + RETRY_ROTATION

    def _shed(self, decisions: list[Decision]) -> None:
        """Declared ones came back: those that stood in for them go, the broken ones first."""
        settled = [m for m in self.members.values() if m.replaces is None]
        held = sum(m.held_since is not None for m in settled)
        spare = [m for m in settled if not m.declared]
        spare.sort(key=lambda m: (m.held_since is not None, -(m.held_since or 0.0)))
        for member in spare:
            if held < self.wanted or (held == self.wanted and member.held_since is not None):
                return
            held -= member.held_since is not None
            self._drop(member.relay.endpoint, Reason.RELAYS_ENOUGH, decisions)

    def _fill(
        self,
        now: float,
        candidates: Sequence[RelayCandidate],
        rng: random.Random,
        decisions: list[Decision],
    ) -> None:
        while self._lacking() > 0:
            broken = [m for m in self.members.values() if m.unhealthy and not m.declared]
            if len(self.members) >= self._most and not broken:
                return
            found = self._pick(now, candidates, rng)
            if found is None:
                return
            if broken:
                worst = min(broken, key=lambda m: self.score(m.candidate, now))
                self._drop(worst.relay.endpoint, worst.failure or Reason.NO_PATH, decisions)
            self._keep(found, Reason.RELAY_WANTED, decisions)

    def _lacking(self) -> int:
        hopeful = (m for m in self.members.values() if not m.unhealthy and m.replaces is None)
        return self.wanted - sum(1 for _ in hopeful)

    def _rotate(
        self,
        now: float,
        candidates: Sequence[RelayCandidate],
        rng: random.Random,
        decisions: list[Decision],
    ) -> None:
        """Begin to replace one that works: by turns, or because there is something wrong with it.

        The newcomer is reserved first; the old one goes with `_end_rotations`.
        """
        busy = any(m.replaces is not None for m in self.members.values())
        if busy or self._lacking() > 0 or len(self.members) >= self._most:
            return
        for victim, because, suits in self._victims(now, rng):
            found = self._pick(now, candidates, rng, instead_of=victim, suits=suits)
            if found is not None:
                self._keep(found, because, decisions)
                self.members[found.relay.endpoint].replaces = victim.relay.endpoint
                return

    def _victims(self, now: float, rng: random.Random) -> Iterator[tuple[Member, Reason, Suits]]:
        """Who is to be replaced, why, and by whom; the most urgent first."""
        held = [m for m in self.members.values() if m.held_since is not None]
        if held and self._rotate_at is None:
            self._rotate_at = now + self._interval(rng)
        ours = [m for m in held if not m.declared]
        ours.sort(key=lambda m: (self.score(m.candidate, now), m.held_since or 0.0))
        for member in ours:
            if member.is_unstable(now):
                yield member, Reason.RELAY_UNSTABLE, lambda _: True
            elif self._is_crowded(member):
                yield member, Reason.SAME_NETWORK, self._is_apart_from(member)
        if ours and self._rotate_at is not None and now >= self._rotate_at:
            self._rotate_at = now + RETRY_ROTATION
            yield ours[0], Reason.RELAY_ROTATION, self._is_as_good_as(ours[0], now)

    def _is_as_good_as(self, victim: Member, now: float) -> Suits:
        """A relay in the network of another member is worse than one in a network of its own."""
        least = self.score(victim.candidate, now)
        apart = self._is_apart_from(victim)
        crowded = self._is_crowded(victim)
        return lambda other: self.score(other, now) >= least and (crowded or apart(other))

    def _is_apart_from(self, victim: Member) -> Suits:
        others = self._groups(without=victim)
        return lambda candidate: self._group(candidate.relay.endpoint) not in others

    def _is_crowded(self, member: Member) -> bool:
        return self._group(member.relay.endpoint) in self._groups(without=member)

    def _groups(self, without: Member | None = None) -> set[str]:
        return {
            self._group(endpoint)
            for endpoint, member in self.members.items()
            if member is not without and not member.unhealthy
        }

    def _pick(
        self,
        now: float,
        candidates: Sequence[RelayCandidate],
        rng: random.Random,
        *,
        instead_of: Member | None = None,
        suits: Suits = lambda _: True,
    ) -> RelayCandidate | None:
        """One that we do not keep and that does not wait: of another network if there is one,
        then one that is proven, then by weight and chance."""
        taken = self._groups(without=instead_of)
        tiers: dict[tuple[bool, bool], list[RelayCandidate]] = {}
        for candidate in candidates:
            if self._is_free(candidate.relay, now) and suits(candidate):
                crowded = self._group(candidate.relay.endpoint) in taken
                tiers.setdefault((crowded, not candidate.proven), []).append(candidate)
        if not tiers:
            return None
        best = tiers[min(tiers)]
        weights = [max(c.weight, math.ulp(1.0)) * self.score(c, now) for c in best]
        return rng.choices(best, weights)[0]

    def _is_free(self, relay: Relay, now: float) -> bool:
        """A relay that we know at an address where it is no more may have another one."""
        if relay.peer_id == self._own_id or relay.endpoint in self.members:
            return False
        if any(relay.is_same(m.relay) for m in self.members.values() if not m.unhealthy):
            return False
        return self._retries.ready(relay.endpoint, now)

    def _keep(self, candidate: RelayCandidate, because: Reason, decisions: list[Decision]) -> None:
        declared = because is Reason.DECLARED
        self.members[candidate.relay.endpoint] = Member(candidate, declared)
        decisions.append(Keep(candidate, because))

    def _drop(self, endpoint: Endpoint, because: Reason, decisions: list[Decision]) -> None:
        del self.members[endpoint]
        decisions.append(Drop(endpoint, because))

    def _interval(self, rng: random.Random) -> float:
        return ROTATE_EVERY * rng.uniform(1 - ROTATE_JITTER, 1 + ROTATE_JITTER)

    def _wait(self, now: float) -> Wait:
        if self._lacking() > 0:
            return Wait(LOOK_AGAIN, Reason.NO_CANDIDATE)
        until = now + ROTATE_EVERY if self._rotate_at is None else self._rotate_at
        return Wait(max(1.0, until - now), Reason.RELAYS_ENOUGH)
