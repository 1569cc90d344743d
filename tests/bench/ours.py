"""Our host as a program of its own, speaking the words of tests/interop/README.md.

.venv/bin/python -m tests.bench.ours '{"bench": true, "relay": {}}'
"""

from __future__ import annotations

import gc
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from appliance.bridge.circuits import CircuitAcceptor
from appliance.bridge.connection import Connection
from appliance.bridge.host import Host, HostLimits
from appliance.bridge.identity import Identity
from appliance.bridge.negotiate import NegotiatedStream
from appliance.bridge.relay import RelayService
from appliance.bridge.reservations import ReservationKeeper
from appliance.bridge.telemetry import Telemetry
from appliance.errors import Fault, StreamReset
from appliance.network import Endpoint
from appliance.policy.relaying import RelayLimits
from appliance.reasons import Reason
from tests.interop.bench import (
    EVERYBODY,
    READY,
    SMALL_SIZE,
    WRITE_SIZE,
    Close,
    Flood,
    Reply,
    timed,
)
from tests.interop.ours import best, connect, describe, parse, reserve

SINK: Final = "/bench/sink/1.0.0"
SMALL: Final = "/bench/echo/1.0.0"
DEADLINE: Final = 30.0
"""Seconds for a command."""

Verb = Callable[..., Awaitable[Reply]]


def say(message: Reply) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def unlimited_host() -> Host:
    """A host without the caps that protect it from strangers."""
    limits = HostLimits(
        EVERYBODY, connections_per_ip=EVERYBODY, handshakes=EVERYBODY, streams_per_connection=4096
    )
    host = Host(Identity.generate(), limits, Telemetry(), allow_private=True)
    # Idle connections are what is measured: nobody may close them.
    host.wanted_by.append(lambda _conn: True)
    return host


UNLIMITED_RELAY: Final = RelayLimits(
    reservations=EVERYBODY, reservations_per_ip=EVERYBODY, circuits=EVERYBODY,
    circuits_per_peer=EVERYBODY, reservation_seconds=3600, circuit_seconds=0, circuit_bytes=0,
)  # fmt: skip


def plain(error: Exception) -> list[str]:
    """What went wrong, without the groups around it."""
    if isinstance(error, ExceptionGroup):
        return [line for inner in error.exceptions for line in plain(inner)]
    return [f"{type(error).__name__}: {error}"]


async def obey_lines(nursery: trio.Nursery, verbs: dict[str, Verb]) -> None:
    """Carry out the commands on standard input, each in a task, until it ends."""

    async def obey(line: str) -> None:
        command = json.loads(line)
        number, verb = command.pop("id"), command.pop("do")
        try:
            with trio.fail_after(DEADLINE):
                reply = await verbs[verb](**command)
        except Exception as error:  # noqa: BLE001 - whatever it was, the harness is told
            reply = {"error": "; ".join(plain(error))}
        say({**reply, "id": number})

    async for line in trio.wrap_file(sys.stdin):
        nursery.start_soon(obey, line)


async def exchange(stream: NegotiatedStream) -> None:
    """A small message there and back."""
    await stream.send_all(bytes(SMALL_SIZE))
    await stream.receive_exactly(SMALL_SIZE)


async def serve_small(stream: NegotiatedStream, _: Connection) -> None:
    """Echo small messages until the other side ends."""
    try:
        while True:
            await stream.send_all(await stream.receive_exactly(SMALL_SIZE))
    except StreamReset:
        await stream.aclose()


async def settle() -> Reply:
    """Collect garbage, so that what is left is what is held."""
    gc.collect()
    return {"tasks": trio.lowlevel.current_statistics().tasks_living}


class BenchPeer:
    """A host, its client side of circuits, and what the verbs keep between two commands."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.host = unlimited_host()
        self._keeper = ReservationKeeper(self.host, random.Random(1))
        self._nursery = nursery
        self._sinks: list[int] = []
        self._flood = Flood()
        CircuitAcceptor(self.host, self._keeper.is_ours)
        self.host.handle(SINK, self._serve_sink)
        self.host.handle(SMALL, serve_small)
        self.verbs: dict[str, Verb] = {
            "connect": self._connect, "disconnect": self._disconnect, "reserve": self._reserve,
            "flood": self._start_flood, "ebb": self._end_flood, "sunk": self._sunk,
            "rtt": self._rtt, "cycle": self._cycle, "settle": settle,
        }  # fmt: skip

    async def _serve_sink(self, stream: NegotiatedStream, _: Connection) -> None:
        number = len(self._sinks)
        self._sinks.append(0)
        await stream.send_all(READY)
        while data := await stream.receive_some(WRITE_SIZE):
            self._sinks[number] += len(data)
        await stream.send_all(str(self._sinks[number]).encode())
        await stream.aclose()

    # --- connections

    async def _to(self, peer_id: str) -> Connection:
        """A connection to the peer: one that it dialled may be on its way."""
        while (conn := best(self.host, peer_id)) is None:  # noqa: ASYNC110 - a harness may poll
            await trio.sleep(0.01)
        return conn

    async def _connect(self, addr: str) -> Reply:
        return describe(await connect(self.host, addr))

    async def _disconnect(self, peer: str) -> Reply:
        for conn in self.host.connections(peer):
            await conn.session.close(Reason.IDLE)
        return {}

    async def _reserve(self, addr: str) -> Reply:
        return {"expires": (await reserve(self._nursery, self._keeper, addr)).expires}

    # --- bulk

    async def _start_flood(self, peer: str, streams: int) -> Reply:
        conn = await self._to(peer)
        flood = self._flood = Flood(running=streams)
        opened = [conn.open(SINK) for _ in range(streams)]
        for stream in opened:
            await stream.receive_exactly(len(READY))
        for stream in opened:
            self._nursery.start_soon(self._fill, stream, flood)
        return {}

    async def _fill(self, stream: NegotiatedStream, flood: Flood) -> None:
        data = bytes(WRITE_SIZE)
        try:
            while not flood.stop:
                await stream.send_all(data)
                flood.sent += len(data)
            await stream.send_eof()
            answer = b""
            while more := await stream.receive_some():
                answer += more
            flood.confirmed += int(answer or b"0")
        except (Fault, StreamReset) as error:
            flood.faults.add(repr(error))
        finally:
            flood.running -= 1
            if not flood.running:
                flood.over.set()

    async def _end_flood(self) -> Reply:
        return await self._flood.end()

    async def _sunk(self) -> Reply:
        return {"at": time.monotonic(), "bytes": self._sinks}

    # --- small messages

    async def _rtt(self, peer: str, count: int, seconds: float, fresh: bool = False) -> Reply:
        conn = await self._to(peer)

        async def once() -> Close:
            stream = conn.open(SMALL)
            await exchange(stream)
            return stream.aclose

        if fresh:
            return await timed(count, seconds, once)
        standing = conn.open(SMALL)
        result = await timed(count, seconds, lambda: exchange(standing))
        await standing.aclose()
        return result

    async def _cycle(self, addr: str, count: int, seconds: float) -> Reply:
        endpoint, peer_id, _ = parse(addr)

        async def once() -> None:
            conn = await self.host.connect(endpoint, peer_id)
            await exchange(conn.open(SMALL))
            await conn.session.close(Reason.IDLE)

        return await timed(count, seconds, once)


async def main(options: Reply) -> None:
    async with trio.open_nursery() as nursery:
        peer = BenchPeer(nursery)
        if options.get("relay") is not None:
            RelayService(peer.host, UNLIMITED_RELAY).start()
        await nursery.start(peer.host.run, [Endpoint("127.0.0.1", 0)])
        [endpoint] = peer.host.listening
        addr = f"/ip4/{endpoint.host}/tcp/{endpoint.port}"
        say({"event": "ready", "peer": peer.host.peer_id, "addrs": [addr]})
        await obey_lines(nursery, peer.verbs)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, json.loads(sys.argv[1]))
