"""Peers that do as they like: raw sockets, raw sessions, raw streams; and how we see our leaks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import trio

from appliance.bridge.connection import Connection
from appliance.bridge.host import YAMUX, Host
from appliance.bridge.identity import Identity
from appliance.bridge.negotiate import NegotiatedStream
from appliance.bridge.secure import PROTOCOL as NOISE
from appliance.bridge.secure import Noise
from appliance.dataplane.secure import SecureStream
from appliance.dataplane.session import MuxStream, Session
from appliance.dataplane.tcp import TcpStream
from appliance.errors import StreamReset
from appliance.network import Endpoint
from tests.bridge.world import World, endpoint_of, until

PING = "/ipfs/ping/1.0.0"


async def socket_to(target: Host | Endpoint) -> trio.SocketStream:
    """A TCP connection from an ephemeral port."""
    endpoint = target if isinstance(target, Endpoint) else endpoint_of(target)
    return await trio.open_tcp_stream(endpoint.host, endpoint.port)


async def channel_to(host: Host, identity: Identity | None = None) -> SecureStream:
    """An authenticated channel on which no muxer was agreed yet."""
    carrier = TcpStream((await socket_to(host)).socket)
    noise = Noise(identity or Identity.generate())
    raw = NegotiatedStream.propose(carrier, NOISE)
    channel, _ = await noise.handshake(raw, client=True, expect=host.peer_id)
    return channel


async def session_to(
    world: World,
    host: Host,
    identity: Identity | None = None,
    on_stream: Callable[[MuxStream], None] = lambda _: None,
) -> Session:
    """A muxed connection of somebody who answers nothing, unless `on_stream` does.

    The host has taken it on return.
    """
    before = len(host.connections())
    muxed = NegotiatedStream.propose(await channel_to(host, identity), YAMUX)
    await muxed.confirmed()
    session = Session(muxed, client=True)
    world.nursery.start_soon(session.run, on_stream)
    await until(lambda: len(host.connections()) > before)
    return session


async def ended(stream: NegotiatedStream) -> None:
    """Wait until the host reset or closed the stream."""
    with trio.fail_after(5), contextlib.suppress(StreamReset):
        while await stream.receive_some():
            pass


async def ping(conn: Connection, data: bytes = b"p" * 32) -> bytes:
    """What the peer's ping service sends back."""
    stream = conn.open(PING)
    await stream.send_all(data)
    echoed = await stream.receive_exactly(len(data))
    await stream.aclose()
    return echoed


async def assert_serves(world: World, host: Host) -> None:
    """A new, well-behaved peer gets through."""
    friend = await world.host()
    with trio.fail_after(5):
        conn = await friend.dial(endpoint_of(host), host.peer_id, client=True)
        assert await ping(conn, b"good") == b"good"
    await world.stop(friend)


async def is_cut(stream: trio.SocketStream) -> bool:
    """Whether the other side ends the connection, however it does."""
    try:
        return not await stream.receive_some()
    except trio.BrokenResourceError:
        return True


async def shout(host: Host, data: bytes) -> bool:
    """Send bytes to the host and nothing more; whether it hangs up within moments."""
    async with await socket_to(host) as stream:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(data)
            await stream.send_eof()
        with trio.move_on_after(5):
            while not await is_cut(stream):
                pass
            return True
    return False


async def is_turned_away(host: Host) -> bool:
    """Whether a new TCP connection is ended by the host within moments."""
    try:
        stream = await socket_to(host)
    except OSError:  # the reset was faster than our look at the new socket
        return True
    async with stream:
        with trio.move_on_after(5):
            return await is_cut(stream)
    return False


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def living_tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living
