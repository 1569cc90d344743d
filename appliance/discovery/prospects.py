"""Whom to ask next, the most promising first, and what to note when they answer or do not."""

from __future__ import annotations

import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

from appliance.addresses.keys import pack, unpack
from appliance.addresses.model import Capability, Origin, RelayClaim, RelayRole, Source, Want
from appliance.addresses.store import AddressBook
from appliance.bridge.host import Host
from appliance.clock import Clock
from appliance.declaration.addresses import NodePeer
from appliance.discovery.asking import Inquirer, Question, may_be_asked, worth_a_dial
from appliance.errors import ApplianceError, Fault
from appliance.events import emit
from appliance.network import Endpoint
from appliance.reasons import Reason

_log: Final = logging.getLogger("appliance.discovery")

TOLD_SOON: Final = 16
"""Relays that wait to hear of us; more reservations than that nobody holds."""
DRAWN: Final = 2
"""Candidates of each kind in one look."""

# What says of the network between us, or of us, and nothing of the peer.
_NOT_ITS_FAULT: Final = frozenset((Reason.CONNECTIONS_FULL, Reason.SELF_DIAL))


class Prospects:
    """Looks at the connections that stand, at what the operator named, and into the book."""

    def __init__(
        self,
        host: Host,
        book: AddressBook,
        inquirer: Inquirer,
        named: Sequence[NodePeer],
        rng: random.Random,
        clock: Clock,
    ) -> None:
        self._host = host
        self._book = book
        self._inquirer = inquirer
        self._named = tuple(named)
        self._rng = rng
        self._clock = clock
        self._soon: OrderedDict[str, None] = OrderedDict()

    @property
    def impatient(self) -> bool:
        """Whether somebody waits to hear of us."""
        return bool(self._soon)

    def tell_soon(self, peer_id: str) -> None:
        """This peer should hear of us before all others."""
        self._soon[peer_id] = None
        if len(self._soon) > TOLD_SOON:
            self._soon.popitem(last=False)

    def now(self, *, hungry: bool) -> Iterator[tuple[str, Question]]:
        """Who they are for the budget of questions, and the question; at most a few dozen."""
        for peer_id in list(self._soon):
            known = self._host.direct_to(peer_id)
            if known is not None and not known.identified.is_set():
                continue  # a moment later we know what it speaks
            del self._soon[peer_id]
            if known is not None and may_be_asked(known):
                yield peer_id, partial(self._inquirer.ask_peer, known)
        for peer in self._rng.sample(self._named, len(self._named)):
            if isinstance(peer, Endpoint):
                yield str(peer), partial(self._visit, peer)
            else:
                yield peer.peer_id, partial(self._named_peer, peer.endpoint, peer.peer_id)
        # With too little known, a relay that nobody has tried comes before what we know.
        for want in (Want.CLAIMED, Want.RELAY) if hungry else (Want.RELAY,):
            yield from self._relays(want, keep=hungry)
        standing = [conn for conn in self._host.connections() if may_be_asked(conn)]
        for conn in self._rng.sample(standing, len(standing)):
            yield conn.peer_id, partial(self._inquirer.ask_peer, conn)
        yield from self._nodes()

    def feelers(self) -> Iterator[tuple[str, Question]]:
        """Addresses to be tested: incumbents that are challenged, then new ones, then claims."""
        incumbents = self._noting(lambda: self._book.settle(self._clock.wall())) or []
        for address in incumbents[:DRAWN]:
            said = self._book.capability(address, self._clock.wall())
            endpoint = unpack(address)
            if said is None or _is_node(said, endpoint):
                yield str(endpoint), partial(self._visit, endpoint)
            else:
                ask = partial(self._relay, address, endpoint, said.peer_id or None, keep=False)
                yield said.peer_id or str(endpoint), ask
        yield from self._nodes(new=True)
        yield from self._relays(Want.CLAIMED, keep=False)

    # --- of the book

    def _relays(self, want: Want, *, keep: bool) -> Iterator[tuple[str, Question]]:
        for candidate in self._book.select(DRAWN, self._clock.wall(), self._rng, want):
            said = candidate.capability
            if said is None or said.peer_id == self._host.peer_id:
                continue
            endpoint = Endpoint(candidate.endpoint.host, said.relay_port or candidate.endpoint.port)
            if worth_a_dial(self._host, endpoint):
                peer_id = said.peer_id or None
                ask = partial(self._relay, candidate.address, endpoint, peer_id, keep=keep)
                yield said.peer_id or str(endpoint), ask

    def _nodes(self, *, new: bool = False) -> Iterator[tuple[str, Question]]:
        for candidate in self._book.select(DRAWN, self._clock.wall(), self._rng, Want.DIRECT):
            said = candidate.capability
            is_node = said is None or _is_node(said, candidate.endpoint)
            wanted = is_node and not (new and candidate.tried)
            if wanted and worth_a_dial(self._host, candidate.endpoint):
                yield str(candidate.endpoint), partial(self._visit, candidate.endpoint)

    async def _relay(
        self, address: bytes, endpoint: Endpoint, peer_id: str | None, *, keep: bool
    ) -> float:
        """Does it relay, as somebody says, and whom does it know?"""
        with self._judging(address):
            found, relays, wait = await self._inquirer.meet_and_ask(endpoint, peer_id, keep=keep)
        self._note_relay(address, found, relays=relays)
        return wait

    async def _named_peer(self, endpoint: Endpoint, peer_id: str) -> float:
        """What the operator named may be a relay as well: asked, it says so itself."""
        found, relays, wait = await self._inquirer.meet_and_ask(endpoint, peer_id, keep=True)
        if relays:
            claim = RelayClaim(pack(endpoint), endpoint.port, role=RelayRole.PUBLIC, peer_id=found)
            origin = Origin(Source.DECLARED, Source.DECLARED.value)
            now = self._clock.wall()
            self._noting(lambda: self._book.learn_claims([claim], origin, now))
            self._note_relay(claim.address, found, relays=True)
        return wait

    async def _visit(self, endpoint: Endpoint) -> float:
        address = pack(endpoint)
        with self._judging(address):
            await self._inquirer.visit(endpoint)
        self._noting(lambda: self._book.record_success(address, self._clock.wall()))
        return 0

    # --- what we note

    def _note_relay(self, address: bytes, peer_id: str, *, relays: bool) -> None:
        book, now, counts = self._book, self._clock.wall(), self._inquirer.counts
        if not relays:
            counts.relays_denied += 1
            self._noting(lambda: book.deny_relay(address, now))
            return
        counts.relays_confirmed += 1
        self._noting(lambda: book.confirm_relay(address, peer_id, now))
        self._noting(lambda: book.record_success(address, now))
        emit(_log, logging.INFO, "relay_confirmed", peer=peer_id, address=str(unpack(address)))

    @contextmanager
    def _judging(self, address: bytes) -> Iterator[None]:
        """A failure is the address's, unless it is ours. Raises what it sees."""
        try:
            yield
        except Fault as fault:
            now = self._clock.wall()
            if fault.reason is Reason.WRONG_PEER:
                self._noting(lambda: self._book.deny_relay(address, now))
            if fault.reason not in _NOT_ITS_FAULT:
                self._noting(lambda: self._book.record_failure(address, now))
            raise

    def _noting(self, write: Callable[[], list[bytes] | object]) -> list[bytes] | None:
        try:
            done = write()
        except ApplianceError as error:
            self._inquirer.counts.book_faults += 1
            emit(_log, logging.ERROR, "book_write_failed", error=error.message)
            return None
        return done if isinstance(done, list) else None


def _is_node(said: Capability, at: Endpoint) -> bool:
    """Whether Kaspa is spoken there. The address of a signed or a declared relay is its libp2p
    listener; what kaspads gossip is the node's, with the relay's port beside it."""
    return not said.signed and said.relay_port != at.port
