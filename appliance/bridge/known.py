"""What the address book offers to those who choose: relays to reserve at, private peers to dial."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from appliance.addresses.keys import pack
from appliance.addresses.model import Capability, Want
from appliance.addresses.store import AddressBook, Candidate
from appliance.clock import Clock
from appliance.errors import ApplianceError, RemoteProtocolError
from appliance.events import emit
from appliance.network import Endpoint
from appliance.policy.peer_choice import PeerCandidate
from appliance.policy.reach import is_dialable
from appliance.policy.relays import Relay, RelayCandidate
from appliance.wire.ways import RelayWay, parse_hint

AT_ONCE: Final = 8
"""Candidates asked for at once: the book gives no two of one network."""
ROUNDS: Final = 4
"""Further questions if the first one finds few: all that is known may be in one network."""
_log = logging.getLogger("appliance.bridge.known")

SignedWays = Callable[[str], Sequence[RelayWay]]
"""Peer id → the relays through which that peer signed that it is reached."""


def _none_signed(_peer_id: str) -> Sequence[RelayWay]:
    return ()


class KnownPeers:
    """Asks the book, and makes candidates of its answers. A book that fails offers nothing."""

    def __init__(
        self,
        book: AddressBook,
        rng: random.Random,
        clock: Clock,
        *,
        allow_private: bool,
    ) -> None:
        self._book = book
        self._rng = rng
        self._clock = clock
        self._allow_private = allow_private
        self.signed_ways: SignedWays = _none_signed
        """Where the whole records are at hand; the book's row names the first relay."""

    def relays(self, kept: Collection[Endpoint] = ()) -> list[RelayCandidate]:
        """Relays that are signed or confirmed, then claimed ones; at first of other networks than
        those we keep."""
        found: dict[Endpoint, RelayCandidate] = {}
        avoid = [pack(endpoint) for endpoint in kept]
        for want in (Want.RELAY, Want.CLAIMED):
            for one in self._asked(want, avoid, lambda: len(found)):
                candidate = self._relay(one, proven=want is Want.RELAY)
                if candidate is not None:
                    found.setdefault(candidate.relay.endpoint, candidate)
        return list(found.values())

    def private_peers(self) -> list[PeerCandidate]:
        """Private peers, with the relays through which they are reached."""
        found: dict[str, PeerCandidate] = {}
        for one in self._asked(Want.PRIVATE, (), lambda: len(found)):
            said = one.capability
            if said is not None and said.peer_id:
                signed = self._dialable(self.signed_ways(said.peer_id))
                ways = signed or self._dialable(_hinted(said))
                is_signed = bool(signed) or said.signed
                candidate = PeerCandidate(
                    said.peer_id, ways, is_signed, one.weight, known_as=one.address
                )
                found.setdefault(said.peer_id, candidate)
        return list(found.values())

    def _asked(
        self, want: Want, avoid: Sequence[bytes], found: Callable[[], int]
    ) -> Iterable[Candidate]:
        now = self._clock.wall()
        try:
            yield from self._book.select(AT_ONCE, now, self._rng, want, avoid=avoid)
            for _ in range(ROUNDS):
                if found() >= AT_ONCE:
                    return
                yield from self._book.select(AT_ONCE, now, self._rng, want)
        except ApplianceError as error:
            emit(_log, logging.ERROR, "book_read_failed", error=error.message)

    def _relay(self, one: Candidate, *, proven: bool) -> RelayCandidate | None:
        said = one.capability
        if said is None:
            return None
        endpoint = Endpoint(one.endpoint.host, said.relay_port or one.endpoint.port)
        if not is_dialable(endpoint, allow_private=self._allow_private):
            return None
        relay = Relay(endpoint, said.peer_id or None)
        return RelayCandidate(relay, proven=proven, weight=one.weight, known_as=one.address)

    def _dialable(self, ways: Iterable[RelayWay]) -> tuple[Relay, ...]:
        return tuple(
            Relay(way.endpoint, way.peer_id)
            for way in ways
            if is_dialable(way.endpoint, allow_private=self._allow_private)
        )


def _hinted(said: Capability) -> tuple[RelayWay, ...]:
    """The one relay that hearsay, or the peer's record in the book, names."""
    try:
        return (parse_hint(said.hint),)
    except RemoteProtocolError:
        return ()
