"""Hop and stop as bare streams: what a relay does, seen from both of its sides."""

from __future__ import annotations

from dataclasses import dataclass

import trio
from libp2p.relay.circuit_v2.pb import circuit_pb2

from appliance.bridge.connection import Connection
from appliance.bridge.host import Host
from appliance.bridge.messages import (
    decode_stop,
    encode_connect,
    encode_reserve,
    encode_stop_status,
)
from appliance.bridge.negotiate import NegotiatedStream
from appliance.wire.circuit import HOP, OK, STOP, IncomingCircuit
from tests.bridge.world import (
    RelayHost,
    World,
    until,
)

RESERVE = encode_reserve()


async def ask(conn: Connection, message: bytes) -> circuit_pb2.HopMessage:
    """The relay's answer to one hop message, as it is on the wire."""
    stream = conn.open(HOP)
    await stream.send_message(message)
    answer = circuit_pb2.HopMessage.FromString(await stream.receive_message())
    assert answer.type == circuit_pb2.HopMessage.STATUS
    assert not answer.HasField("peer")
    stream.reset()
    return answer


async def status(conn: Connection, message: bytes) -> int:
    return (await ask(conn, message)).status


@dataclass(frozen=True, slots=True)
class Target:
    """A peer with a reservation that takes circuits as bare streams."""

    host: Host
    incoming: trio.MemoryReceiveChannel[NegotiatedStream]
    requests: list[IncomingCircuit]


async def target_of(world: World, relay: RelayHost) -> Target:
    host = await world.host()
    send, receive = trio.open_memory_channel[NegotiatedStream](16)
    requests: list[IncomingCircuit] = []

    async def accept(stream: NegotiatedStream, conn: Connection) -> None:
        request = decode_stop(await stream.receive_message())
        assert isinstance(request, IncomingCircuit)
        requests.append(request)
        await stream.send_message(encode_stop_status(OK))
        send.send_nowait(stream)

    host.handle(STOP, accept)
    conn = await world.connect(host, relay.host)
    assert await status(conn, RESERVE) == OK
    return Target(host, receive, requests)


async def circuit(
    world: World, relay: RelayHost, target: Target, source: Host | None = None
) -> Ends:
    """Both ends of a circuit, as bare streams."""
    conn = await world.connect(source or await world.host(), relay.host)
    stream = conn.open(HOP)
    await stream.send_message(encode_connect(target.host.peer_id))
    answer = circuit_pb2.HopMessage.FromString(await stream.receive_message())
    assert answer.status == OK
    return Ends(stream, await target.incoming.receive(), conn)


@dataclass(frozen=True, slots=True)
class Ends:
    source: NegotiatedStream
    target: NegotiatedStream
    connection: Connection
    """From the source to the relay."""


async def over(relay: RelayHost, outcome: str) -> None:
    """Wait for the end of the only circuit; nothing of it may be left."""
    await until(lambda: relay.telemetry.circuits_closed)
    assert relay.telemetry.circuits_closed == {outcome: 1}
    assert relay.service.table.circuits == 0
