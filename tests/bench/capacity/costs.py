"""What one unit of each kind costs: growth of the daemon from few to many of them."""

from __future__ import annotations

import os
import platform
import resource
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from appliance.bridge.identity import Identity
from appliance.network import Endpoint
from tests.bench.capacity.cgroup import Group, group
from tests.bench.capacity.crowd import Crowd, Dial, Guest, serve_node
from tests.bench.capacity.daemon import (
    NOTHING,
    WATCHED,
    Daemon,
    Sections,
    declaration,
    running,
    write,
)
from tests.bench.capacity.limited import limited
from tests.bench.capacity.outside import NOWHERE, Reading, read
from tests.bench.capacity.watchers import Operator, Scraper
from tests.bench.load import all_of

SETTLE: Final = 0.3
"""Seconds between the last arrival and the reading."""
LISTENERS: Final = 3
"""Sockets on which the smallest daemon listens: for peers, operators and scrapers."""
SPARE: Final = 8
"""Units that the caps allow beyond those that are measured."""


def roomy() -> dict[str, object]:
    """A profile with all the memory and files of this machine, and more of the rest than any unit
    of ours fills."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {
        "architecture": platform.machine(),
        "cores": 16,
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "nofile": files,
        "link_bytes_per_second": 1_250_000_000,
        "conntrack_max": 1 << 20,
        "new_connections_per_second": 100_000,
        "storage": "ssd",
    }


@dataclass(frozen=True, slots=True)
class Scale:
    """How many of each are there at the first reading, and at the second."""

    few: int = 100
    many: int = 500
    listeners: int = 16
    slots: int = 256
    operators: int = 8
    scrapers: int = 4


FULL: Final = Scale()
SMALL: Final = Scale(few=60, many=260, slots=128)


@dataclass(frozen=True, slots=True)
class Held:
    """What the daemon holds; the fields of `Cost`."""

    fds: int
    memory_bytes: int
    kernel_bytes: int
    tasks: int
    threads: int
    conntrack: int

    def each(self, before: Held, units: int) -> Measured:
        """What one unit takes, if there are so many more than before."""
        grown = (getattr(self, name) - getattr(before, name) for name in Held.__slots__)
        return Measured(units, *(more / units for more in grown))


@dataclass(frozen=True, slots=True)
class Measured:
    """The same of one unit, not rounded: the mean of so many `units`."""

    units: int
    fds: float
    memory_bytes: float
    kernel_bytes: float
    tasks: float
    threads: float
    conntrack: float

    def without(self, part: Measured, times: int = 1) -> Measured:
        left = (getattr(self, name) - times * getattr(part, name) for name in Held.__slots__)
        return Measured(self.units, *left)


NOBODY: Final = Held(0, 0, 0, 0, 0, 0)


async def held(daemon: Daemon) -> Held:
    """What it holds for good: after it had time to finish, and without garbage."""
    await trio.sleep(SETTLE)
    tasks = await daemon.tasks()
    return _held(daemon.read(), daemon.group, tasks)


def _held(reading: Reading, group: Group | str, tasks: int) -> Held:
    kernel = group.usage().kernel if isinstance(group, Group) else 0
    return Held(reading.fds, reading.rss, kernel, tasks, reading.threads, reading.tcp)


@asynccontextmanager
async def watched(
    node: Endpoint, scale: Scale, sections: Sections = NOTHING, *, slots: Sequence[Identity] = ()
) -> AsyncIterator[Daemon]:
    """A daemon with room for everything."""
    with tempfile.TemporaryDirectory(prefix="appliance-costs-") as scratch:
        directory = Path(scratch)
        document = declaration(directory, "costs", node, sections)
        document["hardware"] = {"profile": roomy()}
        most = scale.many + SPARE
        document["caps"] = {
            "relay_reservations": most, "relay_circuits": most, "unknown_relay_inbound": most
        }  # fmt: skip
        document["bridge"]["private_inbound_target"] = most
        if slots:
            relay = f"/ip4/127.0.0.1/tcp/1/p2p/{Identity.generate().peer_id}"
            peers = [peer.peer_id for peer in slots]
            document["bridge"] |= {"relays": [relay], "peers": peers}
        file = write(directory, document)
        async with running(file, node.port, module=WATCHED) as daemon:
            yield daemon


class Units:
    """Growth, by the name of the unit."""

    def __init__(self) -> None:
        self.found: dict[str, Measured] = {}

    async def grow(
        self,
        name: str,
        daemon: Daemon,
        few: int,
        many: int,
        add: Callable[[int], Awaitable[object]],
    ) -> None:
        """`add(n)` adds n more of them."""
        await add(few)
        before = await held(daemon)
        await add(many - few)
        self.found[name] = (await held(daemon)).each(before, many - few)


async def of_peers(
    units: Units,
    node: Endpoint,
    scale: Scale,
    *,
    task_status: trio.TaskStatus[Held] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Connections, and what peers hold on them. Started with what the daemon held before."""
    async with watched(node, scale) as daemon, trio.open_nursery() as hosts:
        idle = await held(daemon)
        task_status.started(idle)
        units.found["process"] = idle.each(NOBODY, 1)
        await of_watchers(units, daemon, scale)
        crowd = Crowd(hosts, daemon)
        guests = crowd.guests
        few, many = scale.few, scale.many
        waiting = iter(guests)

        async def each(count: int, act: Callable[[Guest], Awaitable[object]]) -> None:
            await all_of([lambda: act(next(waiting))] * count)

        await units.grow("connection", daemon, few, many, crowd.come)
        await units.grow("reservation", daemon, few, many, lambda n: each(n, Guest.reserve))
        waiting = iter(guests)
        targets = iter(guests[::-1])
        await units.grow(
            "circuit", daemon, few, many, lambda n: each(n, lambda one: one.call(next(targets)))
        )
        waiting = iter(guests)
        await units.grow("private_stream", daemon, few, many, lambda n: each(n, Guest.reach_node))
        hosts.cancel_scope.cancel()


async def of_watchers(units: Units, daemon: Daemon, scale: Scale) -> None:
    async with AsyncExitStack() as stack:

        async def operate(count: int) -> None:
            for _ in range(count):
                operator = await Operator.connect(daemon.places.control, stack)
                await operator.status()

        async def scrape(count: int) -> None:
            for _ in range(count):
                await Scraper.connect(daemon.places.metrics, stack)

        # The first of each loads what all of them need.
        await units.grow("operator", daemon, 1, scale.operators, operate)
        await units.grow("scraper", daemon, 1, scale.scrapers, scrape)


async def of_slots(units: Units, node: Endpoint, scale: Scale, idle: Held) -> None:
    peers = [Identity.generate() for _ in range(scale.slots)]
    async with watched(node, scale, slots=peers) as daemon, trio.open_nursery() as hosts:
        units.found["slot"] = (await held(daemon)).each(idle, scale.slots)
        await Crowd(hosts, daemon).come_as(peers)
        with trio.fail_after(180):
            await daemon.slots_open()
        waiting = iter(daemon.slots)
        dials: list[Dial] = []

        async def dial(count: int) -> None:
            for _ in range(count):
                dials.append(dial := await Dial.through(next(waiting)))
                await dial.echo()

        # The first half fills what finding the peers has left free.
        few = scale.slots // 2
        await units.grow("slot_stream", daemon, few, scale.slots, dial)
        hosts.cancel_scope.cancel()


async def of_listeners(units: Units, node: Endpoint, scale: Scale, idle: Held) -> None:
    listen = ["127.0.0.1:0"] * scale.listeners
    async with watched(node, scale, {"bridge": {"listen": listen}}) as daemon:
        units.found["listener"] = (await held(daemon)).each(idle, scale.listeners - 1)


async def of_embedded(units: Units, node: Endpoint, scale: Scale, idle: Held) -> None:
    embedded = {"node": {"kind": "embedded", "p2p": "127.0.0.1:0"}}
    async with watched(node, scale, embedded) as daemon:
        units.found["embedded_node"] = (await held(daemon)).each(idle, 1)


async def of_store(units: Units) -> None:
    """The address book, in a process that does nothing else."""
    with (
        tempfile.TemporaryDirectory(prefix="appliance-costs-") as scratch,
        group("appliance-capacity", None) as made,
    ):
        command = [sys.executable, "-m", "tests.bench.capacity.book", f"{scratch}/book"]
        async with limited(command, made) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            readings, said = [], b""
            for state in (b"ready\n", b"open\n"):
                while not said.endswith(state):
                    if not (more := await process.stdout.receive_some()):
                        raise RuntimeError("the address book's process has ended")
                    said += more
                readings.append(_held(read(process.pid, NOWHERE), made, 0))
                await process.stdin.send_all(b"go on\n")
    before, after = readings
    units.found["store"] = after.each(before, 1)


async def measure(scale: Scale = FULL) -> dict[str, Measured]:
    """Every unit of the table, by its name."""
    units = Units()
    async with trio.open_nursery() as nursery:
        node = await nursery.start(serve_node)
        async with trio.open_nursery() as work:
            idle = await work.start(of_peers, units, node, scale)
            for others in (of_slots, of_listeners, of_embedded):
                work.start_soon(others, units, node, scale, idle)
            work.start_soon(of_store, units)
        nursery.cancel_scope.cancel()
    found = units.found
    # What was there from the start, taken apart: `LISTENERS` sockets, the book, and the rest.
    found["process"] = (
        found["process"].without(found["store"]).without(found["listener"], LISTENERS)
    )
    found["embedded_node"] = found["embedded_node"].without(found["listener"])
    return found
