"""Who loads the daemon: libp2p peers with addresses of their own, and its node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import trio

from appliance.bridge import transport
from appliance.bridge.connection import Connection, Direct
from appliance.bridge.host import Host, HostLimits
from appliance.bridge.identity import Identity
from appliance.bridge.kaspa import PROTOCOL
from appliance.bridge.messages import (
    decode_hop,
    decode_stop,
    encode_connect,
    encode_reserve,
    encode_stop_status,
)
from appliance.bridge.negotiate import NegotiatedStream
from appliance.bridge.telemetry import Telemetry
from appliance.errors import StreamReset
from appliance.network import Endpoint
from appliance.wire.circuit import HOP, OK, STOP, StatusReply, expect_circuit, expect_status
from tests.bench.capacity.daemon import Daemon
from tests.bench.capacity.nets import LAN
from tests.bench.capacity.watchers import ANSWER
from tests.bench.load import all_of
from tests.bench.ours import exchange
from tests.interop.bench import EVERYBODY, SMALL_SIZE


def source_address(number: int) -> str:
    """Guest `number`'s own: the daemon's caps per address are not what is measured."""
    return f"127.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


@dataclass(slots=True, eq=False)
class Guest:
    """A peer with one direct connection to the daemon, and the streams that it holds open."""

    host: Host
    conn: Connection
    held: list[NegotiatedStream] = field(default_factory=list)

    @property
    def peer_id(self) -> str:
        return self.host.peer_id

    async def reserve(self) -> StatusReply:
        with trio.fail_after(ANSWER):
            async with self.conn.exchange(HOP) as stream:
                await stream.send_message(encode_reserve())
                return expect_status(decode_hop(await stream.receive_message()))

    async def call(self, target: Guest) -> StatusReply:
        """A circuit to the target, held if it was granted; bytes have gone through it then."""
        with trio.fail_after(ANSWER):
            stream = self.conn.open(HOP)
            await stream.send_message(encode_connect(target.peer_id))
            reply = expect_status(decode_hop(await stream.receive_message()))
            if reply.ok:
                await exchange(stream)
                self.held.append(stream)
            else:
                await stream.aclose()
        return reply

    async def reach_node(self) -> None:
        """A Kaspa stream to the daemon's node, held. Raises StreamReset if it is refused."""
        with trio.fail_after(ANSWER):
            stream = self.conn.open(PROTOCOL)
            await exchange(stream)
        self.held.append(stream)

    async def echo(self) -> None:
        """Bytes through everything that is held, there and back. Raises StreamReset."""
        with trio.fail_after(ANSWER):
            for stream in self.held:
                await exchange(stream)

    async def flood(self, size: int) -> None:
        """The same with so many bytes at once on each, faster than the daemon passes them on."""
        async with trio.open_nursery() as nursery:
            for stream in self.held:
                nursery.start_soon(stream.send_all, bytes(size))
                nursery.start_soon(stream.receive_exactly, size)


async def send_back(stream: NegotiatedStream, _: Connection) -> None:
    """Echo whatever comes until the other side ends."""
    try:
        while data := await stream.receive_some():
            await stream.send_all(data)
        await stream.aclose()
    except StreamReset:
        pass  # the daemon was told to stop


async def accept_circuit(stream: NegotiatedStream, conn: Connection) -> None:
    expect_circuit(decode_stop(await stream.receive_message()))
    await stream.send_message(encode_stop_status(OK))
    await send_back(stream, conn)


class Crowd:
    """Guests of one daemon; `nursery` owns their hosts."""

    def __init__(self, nursery: trio.Nursery, daemon: Daemon) -> None:
        self.guests: list[Guest] = []
        self._nursery = nursery
        self._daemon = daemon
        self._next = 1

    async def arrive(self, identity: Identity | None = None) -> Guest:
        """One more, identified. Raises Fault if the daemon does not let it in."""
        number, self._next = self._next, self._next + 1
        limits = HostLimits(EVERYBODY, EVERYBODY, EVERYBODY, streams_per_connection=4096)
        host = Host(identity or Identity.generate(), limits, Telemetry(), allow_private=True)
        host.handle(STOP, accept_circuit)
        host.handle(PROTOCOL, send_back)
        # Idle connections are what is measured: their guests do not close them.
        host.wanted_by.append(lambda _: True)
        await self._nursery.start(host.run, [])
        target = Endpoint("127.0.0.1", self._daemon.port)
        tcp = await transport.dial(target, Endpoint(source_address(number), 0))
        path = Direct(target, tcp.local)
        conn = await host.adopt(tcp, path, "outbound", client=True, expect=self._daemon.peer_id)
        with trio.fail_after(ANSWER):
            await conn.identified.wait()
        guest = Guest(host, conn)
        self.guests.append(guest)
        return guest

    async def come(
        self, count: int, then: Callable[[Guest], Awaitable[object]] | None = None
    ) -> list[Guest]:
        """So many more, a few at a time; each does `then` as soon as it is in."""
        came: list[Guest] = []

        async def one() -> None:
            guest = await self.arrive()
            if then is not None:
                await then(guest)
            came.append(guest)

        await all_of([one] * count)
        return came

    async def come_as(self, identities: Iterable[Identity]) -> None:
        """Those that the daemon's slots wait for."""
        await all_of([partial(self.arrive, identity) for identity in identities])

    async def flood(self, size: int) -> None:
        """All that hold something at once."""
        async with trio.open_nursery() as nursery:
            for guest in self.guests:
                if guest.held:
                    nursery.start_soon(guest.flood, size)

    async def echo(self) -> int:
        """Bytes through all that all hold; how many streams that were. Raises StreamReset."""
        await all_of([guest.echo for guest in self.guests if guest.held])
        return sum(len(guest.held) for guest in self.guests)


# --- the node and its dials


async def serve_node(*, task_status: trio.TaskStatus[Endpoint] = trio.TASK_STATUS_IGNORED) -> None:
    """Stands for the kaspad: sends back what it gets. Started with its address."""

    async def echo(stream: trio.SocketStream) -> None:
        try:
            async for data in stream:
                await stream.send_all(data)
        except trio.BrokenResourceError:
            pass

    listeners = await trio.open_tcp_listeners(0, host=LAN, backlog=1024)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, echo, listeners)
        task_status.started(Endpoint(LAN, listeners[0].socket.getsockname()[1]))


@dataclass(slots=True, eq=False)
class Dial:
    """The node's connection to a slot: an outbound Kaspa stream."""

    stream: trio.SocketStream

    @classmethod
    async def through(cls, slot: Endpoint) -> Dial:
        """Raises ConnectionResetError if the slot hangs up at once."""
        try:
            return cls(await trio.open_tcp_stream(slot.host, slot.port))
        except OSError as error:
            raise ConnectionResetError("the slot hung up") from error

    async def echo(self) -> None:
        """Raises ConnectionResetError if the slot hung up."""
        with trio.fail_after(ANSWER):
            try:
                await self.stream.send_all(bytes(SMALL_SIZE))
                got = 0
                while got < SMALL_SIZE:
                    data = await self.stream.receive_some(SMALL_SIZE - got)
                    if not data:
                        raise ConnectionResetError("the slot closed the connection")
                    got += len(data)
            except trio.BrokenResourceError as error:
                raise ConnectionResetError("the slot hung up") from error
