"""Bulk: 64 KiB writes into one or many streams of one connection, direct or through a relay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import trio

from tests.bench.cells import Cells, Run, Settings
from tests.bench.machine import busy, cpu
from tests.bench.pool import Pool, pool
from tests.interop.peers import PeerError, Process
from tests.interop.world import circuit

PATIENCE = 30.0
"""Seconds for a cell beside its load: connect, open, drain, disconnect."""
WINDOWS = 4
"""The last of so many counts, however disturbed."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Bytes of each stream at the receiver at a time on its clock; CPU seconds of each process,
    and of the whole machine."""

    at: float
    streams: list[int]
    cpu: list[float]
    busy: float


async def snapshot(receiver: Process, processes: list[Process]) -> Snapshot:
    reply = await receiver.do("sunk")
    spent = [cpu(process.pid) for process in processes]
    return Snapshot(reply["at"], reply["bytes"], spent, busy())


async def flooded(
    settings: Settings, sender: Process, receiver: Process, relay: Process | None, streams: int
) -> Run:
    """A window of full load, measured again while something else takes too much of the machine.

    Raises PeerError, also if not every byte sent arrived.
    """
    for _ in range(WINDOWS - 1):
        run = await one_window(settings, sender, receiver, relay, streams)
        if run["foreign"] <= settings.quiet:
            return run
    return await one_window(settings, sender, receiver, relay, streams)


async def one_window(
    settings: Settings, sender: Process, receiver: Process, relay: Process | None, streams: int
) -> Run:
    """One window of full load: MB/s, CPU ms per MB of each process, slowest over fastest share,
    and the cores that something else kept busy meanwhile."""
    processes = [sender, receiver] + ([relay] if relay is not None else [])
    known = len((await receiver.do("sunk"))["bytes"])
    await sender.do("flood", peer=receiver.peer_id, streams=streams)
    await trio.sleep(settings.warm_up)
    before = await snapshot(receiver, processes)
    await trio.sleep(settings.seconds)
    after = await snapshot(receiver, processes)
    over = await sender.do("ebb")
    if over["sent"] != over["confirmed"]:
        raise PeerError(f"{over['sent']} bytes were sent, {over['confirmed']} arrived")
    old = (before.streams[known:] + [0] * streams)[:streams]
    new = (after.streams[known:] + [0] * streams)[:streams]
    shares = [late - early for early, late in zip(old, new, strict=True)]
    megabytes = sum(shares) / 1e6
    if not megabytes:
        raise PeerError("no byte arrived in the window")
    costs = [late - early for early, late in zip(before.cpu, after.cpu, strict=True)]
    window = after.at - before.at
    foreign = (after.busy - before.busy - sum(costs)) / window
    run = {"mb_s": megabytes / window, "foreign": max(0.0, foreign)}
    for name, cost in zip(("send_ms_mb", "receive_ms_mb", "relay_ms_mb"), costs, strict=False):
        run[name] = cost * 1000 / megabytes
    if streams > 1:
        run["fairness"] = min(shares) / max(shares)
    return run


@asynccontextmanager
async def connected(sender: Process, receiver: Process, addr: str) -> AsyncIterator[None]:
    """A connection of the two that works, closed at the end unless something failed.

    Raises PeerError, also if it goes another way than the address says.
    """
    conn = await sender.do("connect", addr=addr)
    if conn["relayed"] != ("/p2p-circuit" in addr):
        raise PeerError(f"the connection to {addr} goes another way: {conn}")
    await sender.do("rtt", peer=receiver.peer_id, count=5, seconds=1.0)
    yield
    await sender.do("disconnect", peer=receiver.peer_id)


class Endpoints:
    """A sender and a receiver of one kind, started anew after a failure."""

    def __init__(self, processes: Pool, kind: str) -> None:
        self._pool = processes
        self.kind = kind
        self._sender: Process | None = None
        self._receiver: Process | None = None
        self._reserved: set[Process] = set()

    async def both(self) -> tuple[Process, Process]:
        """Raises PeerError."""
        if self._sender is None:
            self._sender = await self._pool.start(self.kind)
        if self._receiver is None:
            self._receiver = await self._pool.start(self.kind)
        return self._sender, self._receiver

    async def through(self, relay: Process) -> tuple[Process, Process]:
        """The same with a reservation of the receiver at the relay. Raises PeerError."""
        sender, receiver = await self.both()
        if relay not in self._reserved:
            await receiver.do("reserve", addr=relay.addr)
            self._reserved.add(relay)
        return sender, receiver

    def stop(self) -> None:
        self._pool.stop(self._sender, self._receiver)
        self._sender = self._receiver = None
        self._reserved.clear()


class Relays:
    """One relay of each kind, started when it is first needed and anew after a failure."""

    def __init__(self, processes: Pool) -> None:
        self._pool = processes
        self._running: dict[str, Process] = {}

    async def get(self, kind: str) -> Process:
        """Raises PeerError."""
        if kind not in self._running:
            self._running[kind] = await self._pool.start(kind, relay=True)
        return self._running[kind]

    def stop(self, kind: str) -> None:
        self._pool.stop(self._running.pop(kind, None))


async def direct_cell(settings: Settings, ends: Endpoints, streams: int) -> Run:
    sender, receiver = await ends.both()
    async with connected(sender, receiver, receiver.addr):
        return await flooded(settings, sender, receiver, None, streams)


async def relayed_cell(
    settings: Settings, ends: Endpoints, relays: Relays, name: str, streams: int
) -> Run:
    relay = await relays.get(name)
    sender, receiver = await ends.through(relay)
    async with connected(sender, receiver, circuit(relay, receiver)):
        return await flooded(settings, sender, receiver, relay, streams)


async def direct(settings: Settings, cells: Cells) -> None:
    """Each kind with itself; the kinds take turns, so that noise meets all of them."""
    deadline = PATIENCE + WINDOWS * (settings.warm_up + settings.seconds)
    async with pool() as processes:
        pairs = [Endpoints(processes, kind) for kind in settings.kinds]
        for streams in settings.streams:
            for _ in range(settings.rounds):
                for pair in pairs:
                    body = partial(direct_cell, settings, pair, streams)
                    if await cells.attempt(deadline, body, kind=pair.kind, streams=streams) is None:
                        pair.stop()


async def relayed(settings: Settings, cells: Cells) -> None:
    """Each pair of endpoints through every relay; the relays take turns."""
    deadline = PATIENCE + WINDOWS * (settings.warm_up + settings.seconds)
    for kind in settings.pairs:
        async with pool() as processes:
            pair, relays = Endpoints(processes, kind), Relays(processes)
            for streams in settings.streams:
                for _ in range(settings.rounds):
                    for name in settings.relays:
                        body = partial(relayed_cell, settings, pair, relays, name, streams)
                        key = {"pair": kind, "relay": name, "streams": streams}
                        if await cells.attempt(deadline, body, **key) is None:
                            pair.stop()
                            relays.stop(name)
