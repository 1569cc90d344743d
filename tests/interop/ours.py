"""Our bridge's host as a peer of the tests, speaking the same words as the others."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from appliance.bridge.circuits import CircuitAcceptor, dial_through
from appliance.bridge.connection import Connection, Relayed
from appliance.bridge.host import Host, HostLimits
from appliance.bridge.identity import Identity
from appliance.bridge.negotiate import NegotiatedStream
from appliance.bridge.puncher import Puncher
from appliance.bridge.relay import RelayService
from appliance.bridge.reservations import RelayState, ReservationKeeper
from appliance.bridge.telemetry import Telemetry
from appliance.errors import Fault, StreamReset
from appliance.network import Endpoint
from appliance.policy.relaying import RelayLimits
from tests.interop.peers import ANSWER, Events, PeerError, Reply, pattern

ECHO: Final = "/echo/1.0.0"
DIGEST: Final = "/interop/digest/1.0.0"
RESET: Final = "/interop/reset/1.0.0"
PING: Final = "/ipfs/ping/1.0.0"


def parse(addr: str) -> tuple[Endpoint, str, str | None]:
    """`/ip4/IP/tcp/PORT/p2p/ID[/p2p-circuit/p2p/TARGET]` as endpoint, id and target."""
    relay, _, target = addr.partition("/p2p-circuit/p2p/")
    _, _, ip, _, port, _, peer_id = relay.split("/")
    return Endpoint(ip, int(port)), peer_id, target or None


def best(host: Host, peer_id: str) -> Connection | None:
    """The connection that new streams go to: a direct one if there is one."""
    living = (conn for conn in host.connections(peer_id) if not conn.closed)
    return host.direct_to(peer_id) or next(living, None)


async def connect(host: Host, addr: str) -> Connection:
    """A connection to the peer of that address, through a relay if it names one. Raises Fault."""
    endpoint, peer_id, target = parse(addr)
    conn = await host.connect(endpoint, peer_id)
    return conn if target is None else await dial_through(host, conn, target)


async def reserve(nursery: trio.Nursery, keeper: ReservationKeeper, addr: str) -> RelayState:
    """A reservation at the relay of that address, kept in `nursery`. Raises Fault."""
    endpoint, peer_id, _ = parse(addr)
    made = trio.Event()
    keeper.on_outcome.append(lambda _state, _ok: made.set())
    nursery.start_soon(keeper.keep, endpoint, peer_id)
    await made.wait()
    state = keeper.relays[peer_id]
    if state.failure is not None:
        raise state.failure
    return state


async def read_all(stream: NegotiatedStream) -> bytes:
    got = bytearray()
    while data := await stream.receive_some():
        got += data
    return bytes(got)


class Ours:
    """A host with everything the bridge serves to strangers; made by `running_ours`."""

    kind = "ours"

    def __init__(self, nursery: trio.Nursery) -> None:
        self.host = Host(Identity.generate(), HostLimits(200), Telemetry(), allow_private=True)
        self.peer_id = self.host.peer_id
        self.keeper = ReservationKeeper(self.host, random.Random(1))
        self.relay: RelayService | None = None
        self._nursery = nursery
        self._events = Events("ours")
        CircuitAcceptor(self.host, self.keeper.is_ours)
        self.host.handle(ECHO, self._serve_echo)
        self.host.handle(DIGEST, self._serve_digest)
        self.host.handle(RESET, self._serve_reset)

    @property
    def addr(self) -> str:
        [endpoint] = self.host.listening
        return f"/ip4/{endpoint.host}/tcp/{endpoint.port}/p2p/{self.peer_id}"

    async def do(self, verb: str, **arguments: object) -> Reply:
        try:
            with trio.fail_after(ANSWER):
                reply: Reply = await getattr(self, f"_{verb}")(**arguments)
                return reply
        except (Fault, StreamReset, trio.TooSlowError) as error:
            raise PeerError(f"ours {verb}: {error!r}") from error

    async def event(self, name: str, **fields: object) -> Reply:
        return await self._events.take(name, fields)

    # --- what it serves

    async def _serve_echo(self, stream: NegotiatedStream, conn: Connection) -> None:
        count = 0
        try:
            while data := await stream.receive_some():
                count += len(data)
                await stream.send_all(data)
            await stream.aclose()
        except StreamReset:
            self._served(ECHO, conn, count, "reset")
        else:
            self._served(ECHO, conn, count, "eof")

    async def _serve_digest(self, stream: NegotiatedStream, conn: Connection) -> None:
        data = await read_all(stream)
        await stream.send_all(f"{len(data)} {hashlib.sha256(data).hexdigest()}".encode())
        await stream.aclose()
        self._served(DIGEST, conn, len(data), "eof")

    async def _serve_reset(self, stream: NegotiatedStream, conn: Connection) -> None:
        await stream.receive_exactly(1)
        stream.reset()

    def _served(self, protocol: str, conn: Connection, count: int, ended: str) -> None:
        self._events.add({"event": "served", "protocol": protocol, "peer": conn.peer_id,
                          "bytes": count, "ended": ended})  # fmt: skip

    # --- what it is told to do

    def best(self, peer_id: str) -> Connection:
        conn = best(self.host, peer_id)
        if conn is None:
            raise PeerError(f"ours: no connection to {peer_id}")
        return conn

    async def _connect(self, addr: str) -> Reply:
        return describe(await connect(self.host, addr))

    async def _reserve(self, addr: str) -> Reply:
        state = await reserve(self._nursery, self.keeper, addr)
        return {
            "expires": state.expires,
            "seconds": state.limit.seconds,
            "bytes": state.limit.data_bytes,
        }

    async def _connections(self, peer: str) -> Reply:
        return {"connections": [describe(c) for c in self.host.connections(peer) if not c.closed]}

    async def _identify(self, peer: str) -> Reply:
        conn = self.best(peer)
        await conn.identified.wait()
        return {"agent": conn.agent, "observed": str(conn.observed or "")}

    async def _ping(self, peer: str) -> Reply:
        started = trio.current_time()
        stream = self.best(peer).open(PING)
        for count in range(3):
            await stream.send_all(bytes([count]) * 32)
            if await stream.receive_exactly(32) != bytes([count]) * 32:
                raise PeerError("ours: another pong than the ping")
        await stream.aclose()
        return {"ms": (trio.current_time() - started) / 3 * 1000}

    async def _echo(self, peer: str, bytes: int, agreed: bool) -> Reply:  # noqa: A002 - as the tests say it
        got = await self._send(peer, ECHO, bytes, agreed)
        return {"bytes": len(got), "sha256": hashlib.sha256(got).hexdigest()}

    async def _digest(self, peer: str, bytes: int, agreed: bool) -> Reply:  # noqa: A002 - as the tests say it
        return {"answer": (await self._send(peer, DIGEST, bytes, agreed)).decode()}

    async def _send(self, peer: str, protocol: str, size: int, agreed: bool) -> bytes:
        stream = self.best(peer).open(protocol)
        if agreed:
            await stream.confirmed()
        got = bytearray()
        fault: StreamReset | None = None

        async def write() -> None:
            nonlocal fault
            try:
                await stream.send_all(pattern(size))
                await stream.send_eof()
            except StreamReset as error:
                fault = error

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            try:
                got += await read_all(stream)
            except StreamReset as error:
                fault = error
        if fault is not None:
            raise fault
        return bytes(got)

    async def _reset(self, peer: str, **_: object) -> Reply:
        stream = self.best(peer).open(ECHO)
        await stream.send_all(b"\1")
        await stream.receive_exactly(1)
        stream.reset()
        return {}

    async def _be_reset(self, peer: str) -> Reply:
        stream = self.best(peer).open(RESET)
        await stream.send_all(b"\1")
        try:
            await read_all(stream)
        except StreamReset:
            return {"ended": "reset"}
        return {"ended": "eof"}

    async def _exchange(self, peer: str, protocol: str, hex: str) -> Reply:  # noqa: A002 - as the tests say it
        stream = self.best(peer).open(protocol)
        await stream.send_all(bytes.fromhex(hex))
        got = await read_all(stream)
        await stream.aclose()
        return {"hex": got.hex()}


def describe(conn: Connection) -> Reply:
    limit = conn.path.limit if isinstance(conn.path, Relayed) else None
    return {
        "relayed": conn.relayed,
        "limited": limit is not None and bool(limit.seconds or limit.data_bytes),
        "seconds": limit.seconds if limit is not None else 0,
        "bytes": limit.data_bytes if limit is not None else 0,
    }


@asynccontextmanager
async def running_ours(
    *, relay: dict[str, int] | None = None, dcutr: bool = False
) -> AsyncIterator[Ours]:
    """Our host on a loopback port; `relay` gives the terms of its relay service."""
    async with trio.open_nursery() as nursery:
        peer = Ours(nursery)
        if dcutr:
            await nursery.start(Puncher(peer.host, random.Random(2)).run)
        if relay is not None:
            limits = RelayLimits(
                reservations=16, reservations_per_ip=16, circuits=16, circuits_per_peer=16,
                reservation_seconds=relay.get("reservation", 3600),
                circuit_seconds=relay.get("seconds", 0), circuit_bytes=relay.get("bytes", 0),
            )  # fmt: skip
            peer.relay = RelayService(peer.host, limits)
            peer.relay.start()
        await nursery.start(peer.host.run, [Endpoint("127.0.0.1", 0)])
        yield peer
        nursery.cancel_scope.cancel()
