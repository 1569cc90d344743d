"""What a relay holds for an idle connection, stream, reservation and circuit, few and many."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import trio

from tests.bench.cells import Cells, Run, Settings
from tests.bench.machine import cpu, memory
from tests.bench.pool import pool
from tests.interop.peers import PeerError, Process

PER_CONNECTION = 100
"""Streams or circuits on one connection; so many connections there are, and no more."""
SETTLE = 0.5
"""Seconds between the last arrival and the reading."""
DEADLINE = 420.0
WARM = 20
"""Connections that another process holds already: what the first ones load is not counted."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Resident bytes and tasks of the relay, and its CPU seconds when the reading began and ended:
    the collection of garbage between them is not the units' doing."""

    rss: int
    tasks: int | None
    cpu_began: float
    cpu_ended: float


async def read(relay: Process) -> Reading:
    await trio.sleep(SETTLE)
    began = cpu(relay.pid)
    told = await relay.do("settle")
    return Reading(memory(relay.pid).rss, told.get("tasks"), began, cpu(relay.pid))


def difference(before: Reading, after: Reading, count: int) -> Run:
    """Of one unit. The CPU is that of making them all, and of keeping them meanwhile."""
    run: Run = {
        "bytes": (after.rss - before.rss) / count,
        "cpu_ms": (after.cpu_began - before.cpu_ended) * 1000 / count,
    }
    if before.tasks is not None and after.tasks is not None:
        run["tasks"] = (after.tasks - before.tasks) / count
    return run


async def bring(load: Process, verb: str, count: int, **arguments: object) -> None:
    """Repeat the verb until `count` are there. Raises PeerError."""
    now = 0
    while now < count:
        told = await load.do(verb, count=count, **arguments)
        if told["now"] <= now:
            raise PeerError(f"{verb} stays at {now}")
        now = told["now"]


class World:
    """A relay and its load, afresh for each kind of unit."""

    def __init__(self, cells: Cells, kind: str, relay: Process, load: Process) -> None:
        self._cells = cells
        self._kind = kind
        self.relay = relay
        self.load = load

    async def grow(self, unit: str, counts: Iterable[int], verb: str, **arguments: object) -> bool:
        """Readings at each count, against the state before the first; False after a failure."""
        before = await read(self.relay)
        for count in counts:
            body = partial(self._to, count, before, verb, arguments)
            key = {"relay": self._kind, "unit": unit, "count": count}
            if await self._cells.attempt(DEADLINE, body, **key) is None:
                return False
        return True

    async def _to(
        self, count: int, before: Reading, verb: str, arguments: dict[str, object]
    ) -> Run:
        await bring(self.load, verb, count, **arguments)
        return difference(before, await read(self.relay), count)


async def measure(settings: Settings, cells: Cells, kind: str) -> None:
    counts = settings.counts if kind == "ours" else settings.counts_of_others
    most = max(counts)
    async with pool() as processes:
        relay, load = await processes.start(kind, relay=True), await processes.start("load")
        world = World(cells, kind, relay, load)
        warm = await processes.start("load")
        await bring(warm, "connect", WARM, addr=relay.addr)
        await bring(warm, "reserve", WARM)
        if await world.grow("connection", counts, "connect", addr=relay.addr):
            await world.grow("reservation", counts, "reserve")
    async with pool() as processes:
        relay, load = await processes.start(kind, relay=True), await processes.start("load")
        world = World(cells, kind, relay, load)
        # As many connections as the most circuits need, half of them callers, half called.
        connections = 2 * -(-most // PER_CONNECTION)
        await bring(load, "connect", connections, addr=relay.addr)
        await bring(load, "reserve", connections)
        await bring(load, "streams", 1, per=PER_CONNECTION)
        await world.grow("stream", counts, "streams", per=PER_CONNECTION)
        await world.grow("circuit", counts, "circuits", per=PER_CONNECTION)


async def held(settings: Settings, cells: Cells) -> None:
    for kind in settings.relays:
        if kind == "py":
            continue  # its relay refuses to hold many of anything
        try:
            await measure(settings, cells, kind)
        except PeerError as error:
            cells.cell(relay=kind, unit="set-up", count=0).faults.append(str(error))
