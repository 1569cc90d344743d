"""Many clients in one process: what a relay holds in the memory benchmarks.

    .venv/bin/python -m tests.bench.load '{}'

Verbs beside `settle`: `connect` brings the number of clients with a connection to `addr` to
`count`; `reserve` the number of those that hold a reservation; `streams` opens idle streams of
small messages, `per` on a connection; `circuits` circuits between the lower and the upper half of
the clients, `per` on a connection. Streams and circuits have carried one small message each way.
A client is a host of ours with an identity of its own; a circuit is opened and left to the bare
bytes, so that the relay under measurement and not our handshakes takes the time.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import islice
from typing import Any, Final

import trio

from appliance.bridge.connection import Connection
from appliance.bridge.host import Host
from appliance.bridge.messages import (
    decode_hop,
    decode_stop,
    encode_connect,
    encode_reserve,
    encode_stop_status,
)
from appliance.bridge.negotiate import NegotiatedStream
from appliance.wire.circuit import HOP, OK, STOP, expect_circuit, expect_status
from tests.bench.ours import (
    SMALL,
    Verb,
    exchange,
    obey_lines,
    say,
    serve_small,
    settle,
    unlimited_host,
)
from tests.interop.ours import parse

AT_ONCE: Final = 8
"""Clients that connect, reserve or dial at the same time."""

Reply = dict[str, Any]


async def all_of(jobs: list[Callable[[], Awaitable[object]]]) -> None:
    """Run them, a few at a time; the first fault ends the rest."""
    waiting = iter(jobs)

    async def work() -> None:
        for job in waiting:
            await job()

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(work)


async def serve_stop(stream: NegotiatedStream, conn: Connection) -> None:
    """Accept every circuit and echo what comes through it."""
    expect_circuit(decode_stop(await stream.receive_message()))
    await stream.send_message(encode_stop_status(OK))
    await serve_small(stream, conn)


class Client:
    """One host with one connection, and what it holds open on it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.held: list[NegotiatedStream] = []
        host.handle(STOP, serve_stop)

    @property
    def conn(self) -> Connection:
        [conn] = self.host.connections()
        return conn

    async def reserve(self) -> None:
        async with self.conn.exchange(HOP) as stream:
            await stream.send_message(encode_reserve())
            await self._expect_ok(stream)

    async def hold_stream(self) -> None:
        stream = self.conn.open(SMALL)
        await exchange(stream)
        self.held.append(stream)

    async def hold_circuit(self, target: Client) -> None:
        stream = self.conn.open(HOP)
        await stream.send_message(encode_connect(target.host.peer_id))
        await self._expect_ok(stream)
        await exchange(stream)
        self.held.append(stream)

    @staticmethod
    async def _expect_ok(stream: NegotiatedStream) -> None:
        reply = expect_status(decode_hop(await stream.receive_message()))
        if not reply.ok:
            raise ConnectionRefusedError(f"the relay answered {reply.name}")


class Load:
    """All clients. Each verb brings a number up to `count`, at most `AT_MOST` steps a command."""

    AT_MOST: Final = 50

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._clients: list[Client] = []
        self._reserved = self._streams = self._circuits = 0
        self.verbs: dict[str, Verb] = {
            "connect": self._connect, "reserve": self._reserve, "streams": self._open_streams,
            "circuits": self._open_circuits, "settle": settle,
        }  # fmt: skip

    async def _connect(self, addr: str, count: int) -> Reply:
        endpoint, peer_id, _ = parse(addr)

        async def one() -> None:
            client = Client(unlimited_host())
            await self._nursery.start(client.host.run, [])
            conn = await client.host.connect(endpoint, peer_id)
            await conn.identified.wait()
            self._clients.append(client)

        more = min(self.AT_MOST, count - len(self._clients))
        await all_of([one] * more)
        return {"now": len(self._clients)}

    async def _reserve(self, count: int) -> Reply:
        upto = min(count, self._reserved + self.AT_MOST)
        await all_of([client.reserve for client in self._clients[self._reserved : upto]])
        self._reserved = upto
        return {"now": self._reserved}

    async def _open_streams(self, count: int, per: int) -> Reply:
        upto = min(count, self._streams + self.AT_MOST)
        # One after the other: rust drops streams that come faster than its user takes them.
        for number in range(self._streams, upto):
            await self._clients[number // per].hold_stream()
        self._streams = upto
        return {"now": self._streams}

    async def _open_circuits(self, count: int, per: int) -> Reply:
        upto = min(count, self._circuits + self.AT_MOST)
        half = len(self._clients) // 2
        sources, targets = self._clients[:half], self._clients[half:]
        pairs = ((sources[n // per], targets[n // per]) for n in range(upto))
        fresh = islice(pairs, self._circuits, None)
        await all_of([partial(source.hold_circuit, target) for source, target in fresh])
        self._circuits = upto
        return {"now": self._circuits}


async def main() -> None:
    async with trio.open_nursery() as nursery:
        load = Load(nursery)
        say({"event": "ready", "peer": "", "addrs": [""]})
        await obey_lines(nursery, load.verbs)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    json.loads(sys.argv[1])
    trio.run(main)
