"""A small world for the bridge's tests: hosts, relays and nodes on loopback ports that the kernel
chose, real sockets and real handshakes between them, all gone at the end of the block."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import trio

from appliance.bridge.circuits import CircuitAcceptor, dial_through
from appliance.bridge.connection import Connection
from appliance.bridge.host import Host, HostLimits
from appliance.bridge.identity import Identity
from appliance.bridge.relay import RelayService
from appliance.bridge.reservations import ReservationKeeper
from appliance.bridge.telemetry import Telemetry
from appliance.events import FIELDS
from appliance.network import Endpoint
from appliance.policy.relaying import RelayLimits

LOOPBACK = Endpoint("127.0.0.1", 0)
EVERY_IPV4 = Endpoint("0.0.0.0", 0)
NOBODY = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
"""A peer id that no host of a world has."""
LIMITS = HostLimits(200)
RELAY_LIMITS = RelayLimits(
    reservations=16,
    reservations_per_ip=16,
    circuits=16,
    circuits_per_peer=16,
    reservation_seconds=3600,
    circuit_seconds=120,
    circuit_bytes=128 * 1024,
)


def endpoint_of(host: Host) -> Endpoint:
    """The first endpoint that the host listens on."""
    return host.listening[0]


@contextmanager
def taken_between(a: Host, b: Host) -> Iterator[None]:
    """Meanwhile the kernel has a connection from a's listen port to b's, as after a crash of a."""
    mine, theirs = endpoint_of(a), endpoint_of(b)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.bind((mine.host, mine.port))
        sock.connect((theirs.host, theirs.port))
        yield


async def until(what: Callable[[], object], *, seconds: float = 10.0) -> None:
    """Wait for a state that has no event of its own; fails after `seconds`."""
    with trio.fail_after(seconds):
        while not what():  # noqa: ASYNC110 - counters and tables have no event
            await trio.sleep(0.002)


def logged(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    """The fields of each log event of that name so far (set `caplog.set_level(…)` before)."""
    return [
        dict(getattr(record, FIELDS))
        for record in caplog.records
        if record.msg == event and hasattr(record, FIELDS)
    ]


@dataclass(frozen=True, slots=True)
class RelayHost:
    """A public host with its relay service switched on."""

    host: Host
    service: RelayService

    @property
    def peer_id(self) -> str:
        return self.host.peer_id

    @property
    def endpoint(self) -> Endpoint:
        return endpoint_of(self.host)

    @property
    def telemetry(self) -> Telemetry:
        return self.host.telemetry


@dataclass(slots=True)
class _Running:
    scope: trio.CancelScope
    stopped: trio.Event


class World:
    """Starts things and owns them; made by `small_world`."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self._running: dict[Host, _Running] = {}

    async def host(
        self,
        *,
        limits: HostLimits = LIMITS,
        identity: Identity | None = None,
        listen: Sequence[Endpoint] = (LOOPBACK,),
        external: Sequence[Endpoint] = (),
        allow_private: bool = True,
    ) -> Host:
        """A running host with a new identity, unless given."""
        host = Host(
            identity or Identity.generate(),
            limits,
            Telemetry(),
            external=external,
            allow_private=allow_private,
        )
        return await self.start(host, listen)

    async def start(self, host: Host, listen: Sequence[Endpoint] = (LOOPBACK,)) -> Host:
        """Run a host that the test made itself."""
        running = self._running[host] = _Running(trio.CancelScope(), trio.Event())

        async def run(*, task_status: trio.TaskStatus[object]) -> None:
            try:
                with running.scope:
                    await host.run(listen, task_status=task_status)
            finally:
                running.stopped.set()

        await self.nursery.start(run)
        return host

    async def stop(self, host: Host) -> None:
        """End a host without a word, as a crash would; its port is free afterwards."""
        running = self._running.pop(host)
        running.scope.cancel()
        await running.stopped.wait()

    async def relay(
        self,
        limits: RelayLimits = RELAY_LIMITS,
        *,
        identity: Identity | None = None,
        listen: Sequence[Endpoint] = (LOOPBACK,),
        **changed: int,
    ) -> RelayHost:
        """A relay; `changed` names fields of its `RelayLimits`."""
        host = await self.host(identity=identity, listen=listen)
        service = RelayService(host, replace(limits, **changed))
        service.start()
        return RelayHost(host, service)

    async def reserve(self, host: Host, *relays: RelayHost) -> ReservationKeeper:
        """Reservations of `host` at each relay, standing on return; circuits are accepted."""
        keeper = ReservationKeeper(host, random.Random(1))
        CircuitAcceptor(host, keeper.is_ours)
        for relay in relays:
            self.nursery.start_soon(keeper.keep, relay.endpoint, relay.peer_id)
        await until(
            lambda: (
                len(keeper.relays) == len(relays)
                and all(state.state == "active" for state in keeper.relays.values())
            )
        )
        return keeper

    async def connect(self, a: Host, b: Host) -> Connection:
        """A direct connection from a to b, as a sees it; b has it too on return."""
        conn = await a.connect(endpoint_of(b), b.peer_id)
        await until(lambda: b.direct_to(a.peer_id))
        return conn

    async def circuit(self, a: Host, relay: RelayHost, b: Host) -> Connection:
        """A relayed connection from a to b, as a sees it; b has it too on return."""
        to_relay = await self.connect(a, relay.host)
        conn = await dial_through(a, to_relay, b.peer_id)
        await until(lambda: any(c.relayed for c in b.connections(a.peer_id)))
        return conn

    async def tcp(self, serve: Callable[[trio.SocketStream], Awaitable[object]]) -> Endpoint:
        """A TCP server, for whatever stands behind or against the bridge."""

        async def run(*, task_status: trio.TaskStatus[Any]) -> None:
            await trio.serve_tcp(serve, 0, host="127.0.0.1", task_status=task_status)

        [listener] = await self.nursery.start(run)
        return Endpoint(*listener.socket.getsockname()[:2])

    async def echo_node(self) -> Endpoint:
        """A node that sends everything back, and its end of file last."""

        async def echo(stream: trio.SocketStream) -> None:
            async for data in stream:
                await stream.send_all(data)
            await stream.send_eof()

        return await self.tcp(echo)


@asynccontextmanager
async def small_world(seconds: float = 60.0) -> AsyncIterator[World]:
    """The world for one test; everything in it ends with the block, at the latest in time."""
    with trio.fail_after(seconds):
        async with trio.open_nursery() as nursery:
            yield World(nursery)
            nursery.cancel_scope.cancel()
