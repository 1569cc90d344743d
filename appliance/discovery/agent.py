"""The gossip agent: looks for relays and private peers, politely, and answers those who look.

It asks the kaspad beside us, the nodes that the operator named, DNS seeders, peers that we are
connected to anyway, and addresses of the book, at most `Settings.at_once` of them at the same time
and so many in an hour. While too little is known it looks every few seconds; then every few
minutes.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import trio

from appliance.addresses.model import Want
from appliance.addresses.store import AddressBook
from appliance.bridge.envelope import signer_of, verify
from appliance.bridge.gossip import GossipService
from appliance.bridge.guard import guarded, supervised
from appliance.bridge.host import Host
from appliance.bridge.reservations import RelayState
from appliance.clock import Clock, TrioClock
from appliance.discovery.answering import Answers
from appliance.discovery.asking import Inquirer, Question, may_be_asked
from appliance.discovery.counts import DiscoveryCounts
from appliance.discovery.intake import Intake
from appliance.discovery.prospects import Prospects
from appliance.discovery.reach import OwnRecord, Reach
from appliance.discovery.seeders import Resolver, system_resolver
from appliance.discovery.settings import Settings
from appliance.discovery.shelf import MAX_HELD, Shelf
from appliance.errors import Fault
from appliance.events import emit
from appliance.network import Endpoint
from appliance.node.asking import Visitor
from appliance.operate.status import DiscoveryStatus
from appliance.policy.gossip import FEELER, AskBudget, Pace, jittered
from appliance.units import HOUR, MINUTE
from appliance.wire.capability import Claim
from appliance.wire.gossip import ASK_INTERVAL
from appliance.wire.ways import RelayWay

_log: Final = logging.getLogger("appliance.discovery")

RPC_EVERY: Final = 10 * MINUTE
RPC_AGAIN: Final = 30.0
"""Seconds after which a kaspad that did not answer is asked again: it may be starting."""
SEEDERS_EVERY: Final = HOUR
SEEDERS_AT_ONCE: Final = 2
"""Names that are asked before we look whether that was enough."""
FEW: Final = 64
"""Addresses; with fewer in the book, seeders are asked."""
REMEMBERED: Final = 64
"""Relays of the book whose records are at hand after a start: an answer's worth."""
SOON: Final = 1.0
"""Seconds until a relay that has not said yet what it speaks is looked at again."""
SETTLED: Final = 0.5
"""Seconds from the first piece of news to the look that tells it."""
GOODBYES: Final = 16
"""Peers that are told when we leave; they tell the others."""
GOODBYE: Final = 2.0


class Discovery:
    """`run` owns every task. `reach` says where we can be reached at this moment."""

    def __init__(
        self,
        host: Host,
        book: AddressBook,
        settings: Settings,
        reach: Callable[[], Reach],
        rng: random.Random,
        *,
        clock: Clock | None = None,
        resolve: Resolver = system_resolver,
    ) -> None:
        self.counts = DiscoveryCounts()
        self.shelf = Shelf(network=book.network_of)
        self._host = host
        self._book = book
        self._settings = settings
        self._rng = rng
        self._clock = clock = clock or TrioClock()
        self._resolve = resolve
        network, peer_id = settings.network, host.peer_id
        self._own = OwnRecord(signer_of(host.identity), peer_id, network, reach, clock)
        intake = Intake(
            book,
            self.shelf,
            self.counts,
            network,
            peer_id,
            allow_private=host.allow_private,
            verify=verify,
        )
        self._inquirer = Inquirer(
            host,
            network,
            intake,
            self.shelf,
            Visitor(network, rng, self.claim),
            self._own.sealed,
            self.counts,
            clock,
        )
        self._prospects = Prospects(host, book, self._inquirer, settings.peers, rng, clock)
        answers = Answers(network, intake, self.shelf, self._own.sealed, self.counts, rng, clock)
        self._service = GossipService(host, answers.respond)
        self._budget = AskBudget(settings.per_hour, ASK_INTERVAL)
        self._pace = Pace()
        self._running = 0
        self._wake = trio.Event()
        self._intake = intake
        self.on_relays = intake.on_relays
        """Called when relays were heard of, for whoever looks for some."""

    # --- what others ask

    def claim(self) -> Claim | None:
        """What we can claim in Kaspa's own messages, for the embedded node."""
        return self._own.claim()

    def ways_to(self, peer_id: str) -> tuple[RelayWay, ...]:
        """The relays through which a private peer says that it is reached."""
        return self.shelf.ways_to(peer_id, self._clock.wall())

    def status(self) -> DiscoveryStatus:
        counts, now = self._book.counts(), self._clock.wall()
        return DiscoveryStatus(
            known=counts["entries"],
            relays=counts["relays"],
            private=max(counts["private"], len(self.shelf.private(now))),
            asked=self.counts.asked.total(),
            answered=self.counts.answered.total(),
            served=self.counts.served,
        )

    def reservation_changed(self, state: RelayState, succeeded: bool) -> None:
        """For `ReservationKeeper.on_outcome`: our relays hear at once through whom we are reached,
        and a relay that was lost makes us look for others."""
        if succeeded:
            for way in self._own.reach().relays:
                if way.peer_id is not None:
                    self._prospects.tell_soon(way.peer_id)
                    self._budget.bring_forward(way.peer_id)
        else:
            self._pace.hurry()
        self._wake.set()

    @property
    def hungry(self) -> bool:
        """Whether too few relays or no private peers are known, or too few relays hold us."""
        counts, reach = self._book.counts(), self._own.reach()
        wanted = self._settings.relays_wanted
        unheld = not reach.is_public and len(reach.relays) < wanted
        return unheld or counts["relays"] < wanted or not counts["private"]

    # --- life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ask and answer until cancelled; started once we answer."""
        self._remember()
        self._service.start()
        telemetry, settings = self._host.telemetry, self._settings
        try:
            async with trio.open_nursery() as nursery:
                loops: list[Callable[[], Awaitable[None]]] = [
                    partial(self._look, nursery),
                    partial(self._feel, nursery),
                ]
                if settings.rpc is not None:
                    loops.append(partial(self._ask_kaspad, settings.rpc))
                if settings.dns_seeders:
                    loops.append(self._ask_seeders)
                for loop in loops:
                    nursery.start_soon(supervised, telemetry, "discovery", loop)
                task_status.started()
        finally:
            self._service.stop()

    async def withdraw(self) -> None:
        """Tell connected appliances that we go; within `GOODBYE` seconds. Never raises a Fault."""
        sealed = self._own.withdraw()
        if sealed is None:
            return
        peers = {c.peer_id: c for c in self._host.connections() if may_be_asked(c)}
        with trio.move_on_after(GOODBYE):
            async with trio.open_nursery() as nursery:
                for conn in list(peers.values())[:GOODBYES]:
                    tell = partial(self._inquirer.tell, conn, sealed)
                    nursery.start_soon(
                        guarded, self._host.telemetry, "discovery", conn.peer_id, tell
                    )

    def _remember(self) -> None:
        """Signed records that the book kept are at hand again."""
        now = self._clock.wall()
        relays = self._book.select(REMEMBERED, now, self._rng, Want.RELAY)
        kept = [one.capability for one in relays if one.capability is not None]
        # Those of private peers, too; of very many it is any.
        for one in (*kept, *self._book.records(now, self._rng, MAX_HELD)):
            if one.signed:
                self._intake.remind(one, now)

    # --- tasks

    async def _look(self, nursery: trio.Nursery) -> None:
        while True:
            hungry = self.hungry
            prospects = self._prospects.now(hungry=hungry)
            # Looked at one by one: who is drawn counts as asked.
            while self._running < self._settings.at_once and (one := next(prospects, None)):
                self._begin(nursery, *one)
            pause = self._pace.pause(self._rng, hungry=hungry)
            if self._prospects.impatient:
                pause = min(pause, SOON)
            with trio.move_on_after(pause):
                await self._wake.wait()
                # Several relays accept us within a moment: that is one piece of news.
                await trio.sleep(SETTLED)
            self._wake = trio.Event()

    async def _feel(self, nursery: trio.Nursery) -> None:
        """Now and then an address is tested: whoever is to be evicted first."""
        while True:
            await trio.sleep(jittered(FEELER, self._rng))
            for who, question in self._prospects.feelers():
                if self._running < self._settings.at_once:
                    self._begin(nursery, who, question)

    def _begin(self, nursery: trio.Nursery, who: str, question: Question) -> None:
        if not self._budget.may_ask(who, self._clock.monotonic()):
            return
        self._budget.asked(who, self._clock.monotonic(), self._rng)
        self._running += 1
        nursery.start_soon(self._ask, who, question)

    async def _ask(self, who: str, question: Question) -> None:
        async def ask() -> None:
            wait = await question()
            self._budget.answered(
                who, self._clock.monotonic(), self._rng, hungry=self.hungry, wait=wait
            )

        try:
            await guarded(self._host.telemetry, "discovery", who, ask)
        finally:
            self._running -= 1

    async def _ask_kaspad(self, endpoint: Endpoint) -> None:
        while True:
            try:
                await self._inquirer.ask_kaspad(endpoint)
                pause = RPC_EVERY
                self._wake.set()
            except Fault as fault:
                pause = RPC_AGAIN
                emit(
                    _log,
                    logging.DEBUG,
                    "kaspad_not_asked",
                    rpc=str(endpoint),
                    reason=fault.reason.value,
                    detail=fault.detail,
                )
            await trio.sleep(jittered(pause, self._rng))

    async def _ask_seeders(self) -> None:
        while True:
            names = self._rng.sample(self._settings.dns_seeders, len(self._settings.dns_seeders))
            while names and len(self._book) < FEW:
                async with trio.open_nursery() as nursery:
                    for name in names[:SEEDERS_AT_ONCE]:
                        nursery.start_soon(self._ask_seeder, name)
                del names[:SEEDERS_AT_ONCE]
            await trio.sleep(jittered(SEEDERS_EVERY, self._rng))

    async def _ask_seeder(self, name: str) -> None:
        async def ask() -> None:
            await self._inquirer.ask_seeder(name, self._resolve)
            self._wake.set()

        await guarded(self._host.telemetry, "discovery", name, ask)
