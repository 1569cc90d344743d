"""Everything that the caps of a plan allow, at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import trio

from appliance.bridge.identity import Identity
from appliance.errors import Fault
from tests.bench.capacity.crowd import Crowd, Dial, Guest
from tests.bench.capacity.daemon import Daemon
from tests.bench.capacity.outcome import Outcome
from tests.bench.capacity.watchers import Operator, Scraper
from tests.bench.load import all_of

SLOTS_OPEN: Final = 120.0
"""Seconds until every slot has found its peer's connection."""
SETTLE: Final = 1.0
FLOOD_OVER: Final = 600.0
"""Seconds for a flood to pass at the rate that the plan allows."""


class Filling:
    """Fills a daemon; says in `outcome.loaded` with how many of what."""

    def __init__(
        self, daemon: Daemon, crowd: Crowd, outcome: Outcome, peers: list[Identity]
    ) -> None:
        self.daemon = daemon
        self.crowd = crowd
        self.dials: list[Dial] = []
        self.holders: list[Guest] = []
        self.callers: list[Guest] = []
        self.caps: Mapping[str, int] = outcome.plan["caps"]
        self._loaded = outcome.loaded
        self._notes = outcome.notes
        self._peers = peers

    async def fill(self) -> None:
        """Raises, in a group, what the first one raised who was refused below the caps."""
        await self._slots()
        await self._relayed()
        await self._inbound()
        await self._spare()

    async def _slots(self) -> None:
        await self.crowd.come_as(self._peers)
        with trio.fail_after(SLOTS_OPEN):
            await self.daemon.slots_open()
        for slot in self.daemon.slots:
            self.dials.append(dial := await Dial.through(slot))
            await dial.echo()
        self._loaded["outbound_private"] = len(self.dials)

    async def _relayed(self) -> None:
        async def reserve(guest: Guest) -> None:
            _expect_ok((await guest.reserve()).name)

        self.holders = await self.crowd.come(self.caps["relay_reservations"], reserve)
        turns = iter(range(self.caps["relay_circuits"]))

        async def call(guest: Guest) -> None:
            target = self.holders[next(turns) % len(self.holders)]
            _expect_ok((await guest.call(target)).name)

        self.callers = await self.crowd.come(self.caps["relay_circuits"], call)
        self._loaded["relay_reservations"] = len(self.holders)
        self._loaded["relay_circuits"] = len(self.callers)

    async def _inbound(self) -> None:
        # A public appliance keeps no reservations, so no relay introduces anybody to it.
        cap = self.caps["inbound_private"]
        reachable = min(cap, self.caps["unknown_relay_inbound"])
        if reachable < cap:
            self._notes.append(
                f"inbound_private: {reachable} of {cap} can come while public, without a relay "
                "that introduces them"
            )
        await self.crowd.come(reachable, Guest.reach_node)
        self._loaded["inbound_private"] = reachable

    async def _spare(self) -> None:
        """Connections that want nothing, until one is refused."""
        spare = 0
        while spare < self.daemon.nofile:
            try:
                await self.crowd.arrive()
            except Fault:
                break
            spare += 1
        self._loaded["other connections"] = spare

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """As many operators and scrapers as are served at once; they are let go of after 10 s."""
        async with AsyncExitStack() as stack:
            for _ in range(self.caps["operators"]):
                await (await Operator.connect(self.daemon.places.control, stack)).status()
            for _ in range(self.caps["scrapers"]):
                await Scraper.connect(self.daemon.places.metrics, stack)
            await trio.sleep(SETTLE)
            self._loaded["operators"] = self.caps["operators"]
            self._loaded["scrapers"] = self.caps["scrapers"]
            yield

    async def flood(self, size: int) -> None:
        """So many bytes at once on every circuit and stream, there and back."""
        with trio.fail_after(FLOOD_OVER):
            await self.crowd.flood(size)

    async def echo(self) -> int:
        """A few bytes through all of them; through how many."""
        streams = await self.crowd.echo()
        await all_of([dial.echo for dial in self.dials])
        return streams + len(self.dials)


def _expect_ok(name: str) -> None:
    if name != "OK":
        raise ConnectionRefusedError(f"the daemon answered {name} below its cap")
