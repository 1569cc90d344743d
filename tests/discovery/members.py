"""Appliances without a laboratory: hosts on loopback, each in a network of its own, with a book,
an agent and, if wanted, an embedded node; and those who answer them badly."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import trio

from appliance.addresses.model import Want
from appliance.addresses.store import AddressBook
from appliance.addresses.systems import AutonomousSystems
from appliance.bridge.circuits import CircuitAcceptor
from appliance.bridge.host import Host
from appliance.bridge.kaspa import KaspaStreams
from appliance.bridge.relay import RelayService
from appliance.bridge.reservations import ReservationKeeper
from appliance.declaration.addresses import NodePeer, RelayAddress
from appliance.discovery.agent import Discovery
from appliance.discovery.reach import Reach, reach_of
from appliance.discovery.settings import Settings
from appliance.network import Endpoint, Network
from appliance.node.embedded import EmbeddedNode
from appliance.policy.admission import InboundLimits
from tests.bridge.world import RELAY_LIMITS, World, endpoint_of, small_world

NETWORK = Network.SIMNET


@dataclass(slots=True)
class Member:
    """One appliance of a town."""

    host: Host
    book: AddressBook
    relay: RelayService
    keeper: ReservationKeeper
    discovery: Discovery
    node: Endpoint | None
    """Where its embedded node listens."""
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    @property
    def peer_id(self) -> str:
        return self.host.peer_id

    @property
    def address(self) -> RelayAddress:
        return RelayAddress(endpoint_of(self.host), self.peer_id)

    def relays(self) -> set[str]:
        """Peer ids of the relays that its book would choose from."""
        now, rng = self.discovery._clock.wall(), random.Random(1)
        found = self.book.select(16, now, rng, Want.RELAY)
        return {c.capability.peer_id for c in found if c.capability is not None}


class Town:
    """Makes members; everything ends with the block that made it."""

    def __init__(
        self, world: World, directory: Path, systems: AutonomousSystems | None = None
    ) -> None:
        self.world = world
        self._directory = directory
        self._systems = systems
        self._made = 0
        self.books: list[AddressBook] = []

    async def member(
        self,
        *peers: NodePeer,
        public: bool,
        node: bool = False,
        network: Network = NETWORK,
        **settings: Any,
    ) -> Member:
        """Running; a private one takes circuits but reserves nowhere by itself."""
        self._made += 1
        place = Endpoint(f"127.{self._made}.0.1", 0)
        host = await self.world.host(listen=[place])
        directory = self._directory / f"book{self._made}"
        book = AddressBook.open(directory, network, allow_private=True, systems=self._systems)
        self.books.append(book)
        relay = RelayService(host, RELAY_LIMITS)
        rng = random.Random(self._made)
        keeper = ReservationKeeper(host, rng)
        CircuitAcceptor(host, keeper.is_ours)
        if public:
            relay.start()
        at: list[Endpoint] = []

        def reach() -> Reach:
            return reach_of(host, relay, keeper, at[0] if at and public else None)

        resolve = settings.pop("resolve", None)
        options = {} if resolve is None else {"resolve": resolve}
        wanted = Settings(network=network, peers=tuple(peers), **settings)
        discovery = Discovery(host, book, wanted, reach, rng, **options)
        keeper.on_outcome.append(discovery.reservation_changed)
        if node:
            embedded = EmbeddedNode(network, place, claim=discovery.claim)
            at.append(await self.world.nursery.start(embedded.run))
            KaspaStreams(host, at[0], InboundLimits(8, 8, 8))
        member = Member(host, book, relay, keeper, discovery, at[0] if at else None)

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            with member.scope:
                await discovery.run(task_status=task_status)

        await self.world.nursery.start(run)
        return member

    async def again(self, old: Member) -> Member:
        """A new agent over the host and the book of one that was stopped."""
        settings = Settings(network=NETWORK, at_once=0)
        rng = random.Random(99)
        discovery = Discovery(old.host, old.book, settings, Reach, rng)
        member = replace(old, discovery=discovery, scope=trio.CancelScope())
        await self.world.nursery.start(discovery.run)
        return member

    def reserve(self, guest: Member, relays: Sequence[Member]) -> None:
        """As the pool of relays would."""
        for relay in relays:
            at = endpoint_of(relay.host)
            self.world.nursery.start_soon(guest.keeper.keep, at, relay.peer_id)


@asynccontextmanager
async def town(
    directory: Path, seconds: float = 60.0, *, systems: AutonomousSystems | None = None
) -> AsyncIterator[Town]:
    """Nobody yet."""
    books: list[AddressBook] = []
    try:
        async with small_world(seconds) as world:
            made = Town(world, directory, systems)
            books = made.books
            yield made
    finally:
        for book in books:
            book.close()
