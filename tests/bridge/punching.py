"""What the tests of hole punching share: hosts that punch, and DCUtR spoken by hand."""

from __future__ import annotations

import random

import pytest
import trio

from appliance.bridge import puncher
from appliance.bridge.connection import Connection
from appliance.bridge.host import Host
from appliance.bridge.messages import decode_dcutr, encode_dcutr
from appliance.bridge.negotiate import NegotiatedStream
from appliance.bridge.puncher import Puncher
from appliance.errors import StreamReset
from appliance.network import Endpoint
from appliance.reasons import Reason
from appliance.wire import redial
from appliance.wire.dcutr import PROTOCOL, Message
from tests.bridge.world import EVERY_IPV4, RelayHost, World

EVERYWHERE = (EVERY_IPV4,)
"""Listening here, a host announces only what it declares or what others observe."""
IDENTIFY = "/ipfs/id/1.0.0"


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rounds in a second."""
    monkeypatch.setattr(redial, "WINDOW", 0.2)
    monkeypatch.setattr(puncher, "LISTENER_GRACE", 0.1)
    monkeypatch.setattr(puncher, "EXCHANGE_DEADLINE", 0.3)


async def punching(world: World, *hosts: Host) -> None:
    for host in hosts:
        await world.nursery.start(Puncher(host, random.Random(7)).run)


async def silent_relay(world: World) -> RelayHost:
    """A relay that does not say where it sees us."""
    relay = await world.relay()
    relay.host.unhandle(IDENTIFY)
    return relay


def at(host: Host) -> Endpoint:
    """Where a host that listens everywhere is on loopback."""
    return Endpoint("127.0.0.1", host.listening[0].port)


def relayed(host: Host, peer: Host) -> Connection | None:
    return next((conn for conn in host.connections(peer.peer_id) if conn.relayed), None)


def failed(host: Host) -> dict[Reason, int]:
    return dict(host.telemetry.punch.failed)


async def closed_port() -> trio.socket.SocketType:
    """A port that answers every SYN with RST, ours as long as the socket is open."""
    sock = trio.socket.socket()
    await sock.bind(("127.0.0.1", 0))
    return sock


def endpoint_of(sock: trio.socket.SocketType) -> Endpoint:
    return Endpoint(*sock.getsockname()[:2])


async def hear(stream: NegotiatedStream) -> Message:
    return decode_dcutr(await stream.receive_message())


async def say(conn: Connection, *messages: Message) -> NegotiatedStream:
    stream = conn.open(PROTOCOL)
    for message in messages:
        await stream.send_message(encode_dcutr(message))
    return stream


async def until_reset(stream: NegotiatedStream) -> None:
    async def read() -> None:
        while await stream.receive_some():
            pass

    with pytest.raises(StreamReset):
        await read()
