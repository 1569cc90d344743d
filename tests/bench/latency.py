"""Round trips of 64 bytes, idle and under load, and whole cycles of connect, echo, disconnect."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from tests.bench.bulk import PATIENCE, Endpoints, Relays, connected
from tests.bench.cells import Cells, Run, Settings
from tests.bench.machine import cpu
from tests.bench.pool import pool
from tests.interop.peers import PeerError, Process
from tests.interop.world import circuit

LOAD = 64
"""Streams of bulk beside the small messages."""
LOADED_MESSAGES = 200
CYCLES = 300

Measure = Callable[[Settings, Process, Process], Awaitable[Run]]


def quantiles(us: list[int]) -> tuple[float, float]:
    """Median and 95th percentile in ms. Raises PeerError for an empty series."""
    if not us:
        raise PeerError("no message came back in time")
    ordered = sorted(us)
    return statistics.median(ordered) / 1000, ordered[len(ordered) * 95 // 100] / 1000


async def idle(settings: Settings, sender: Process, receiver: Process) -> Run:
    """A standing stream, then a new stream for each message, nothing else going on."""
    run: Run = {}
    for name, fresh in (("standing", False), ("fresh", True)):
        told = await sender.do(
            "rtt",
            peer=receiver.peer_id,
            count=settings.messages,
            seconds=settings.message_seconds,
            fresh=fresh,
        )
        run[f"{name}_ms"], run[f"{name}_p95_ms"] = quantiles(told["us"])
    return run


async def loaded(settings: Settings, sender: Process, receiver: Process) -> Run:
    """A new stream for each message, opened by the side that floods the same connection."""
    await sender.do("flood", peer=receiver.peer_id, streams=LOAD)
    await trio.sleep(settings.warm_up)
    told = await sender.do(
        "rtt",
        peer=receiver.peer_id,
        count=LOADED_MESSAGES,
        seconds=settings.message_seconds,
        fresh=True,
    )
    await sender.do("ebb")
    run: Run = {"messages": len(told["us"])}
    run["loaded_ms"], run["loaded_p95_ms"] = quantiles(told["us"])
    return run


async def message_cell(
    settings: Settings, ends: Endpoints, relays: Relays, path: str | None, measure: Measure
) -> Run:
    if path is None:
        sender, receiver = await ends.both()
        addr = receiver.addr
    else:
        relay = await relays.get(path)
        sender, receiver = await ends.through(relay)
        addr = circuit(relay, receiver)
    async with connected(sender, receiver, addr):
        return await measure(settings, sender, receiver)


async def latency(settings: Settings, cells: Cells) -> None:
    """Each kind with itself: direct, through our relay, and through its own."""
    deadline = PATIENCE + settings.warm_up + 2 * settings.message_seconds
    for kind in settings.kinds:
        paths: list[str | None] = [None]
        if kind != "py":  # as an end of a circuit it is not measured anywhere
            paths += [name for name in dict.fromkeys(("ours", kind)) if name in settings.relays]
        for path in paths:
            async with pool() as processes:
                ends, relays = Endpoints(processes, kind), Relays(processes)
                for name, measure in (("idle", idle), ("loaded", loaded)):
                    body = partial(message_cell, settings, ends, relays, path, measure)
                    key = {"kind": kind, "path": path or "direct", "load": name}
                    await cells.attempt(deadline, body, **key)


async def cycle_cell(settings: Settings, ends: Endpoints) -> Run:
    dialler, listener = await ends.both()
    before = cpu(dialler.pid), cpu(listener.pid)
    told = await dialler.do(
        "cycle", addr=listener.addr, count=CYCLES, seconds=settings.message_seconds
    )
    spent = cpu(dialler.pid) - before[0], cpu(listener.pid) - before[1]
    median, p95 = quantiles(told["us"])
    done = len(told["us"])
    return {
        "per_s": done / (sum(told["us"]) / 1e6),
        "median_ms": median,
        "p95_ms": p95,
        "dialler_ms": spent[0] * 1000 / done,
        "listener_ms": spent[1] * 1000 / done,
    }


async def cycles(settings: Settings, cells: Cells) -> None:
    """Connect, one echo on a new stream, disconnect; one after the other."""
    async with pool() as processes:
        pairs = [Endpoints(processes, kind) for kind in settings.kinds]
        for _ in range(settings.rounds):
            for pair in pairs:
                body = partial(cycle_cell, settings, pair)
                if await cells.attempt(PATIENCE, body, kind=pair.kind) is None:
                    pair.stop()
