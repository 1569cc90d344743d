"""Defects of the library at its pinned version, each of which one of our parts works around.

A failure here is good news: the library no longer needs that part of ours. Numbers as in the
tests named `test_defect_N_…`, which say that we do not have them. Defect 2 (a stalled reader
loses the stream after 5 s) is left out: it costs the five seconds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import base58
import pytest
import trio
from libp2p import new_host
from libp2p.abc import IHost
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb import circuit_pb2
from libp2p.relay.circuit_v2.protocol import CircuitV2Protocol
from libp2p.relay.circuit_v2.resources import RelayLimits
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from appliance.bridge.connection import Connection
from appliance.bridge.host import Host
from appliance.bridge.messages import encode_connect, encode_reserve, encode_stop_status
from appliance.bridge.negotiate import NegotiatedStream
from appliance.errors import StreamReset
from appliance.network import Endpoint
from appliance.reasons import Reason
from appliance.wire.circuit import HOP, OK, STOP
from tests.bridge.world import World, until


@asynccontextmanager
async def stock_host() -> AsyncIterator[IHost]:
    """The library's own host on a loopback port."""
    host = new_host()
    async with host.run(listen_addrs=[Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        yield host


async def connect(ours: Host, stock: IHost) -> Connection:
    [address] = stock.get_transport_addrs()
    endpoint = Endpoint("127.0.0.1", int(address.value_for_protocol("tcp")))
    return await ours.connect(endpoint, str(stock.get_id()))


@asynccontextmanager
async def stock_relay(seconds: int = 60) -> AsyncIterator[tuple[IHost, CircuitV2Protocol]]:
    limits = RelayLimits(duration=seconds, data=1 << 20, max_circuit_conns=8, max_reservations=4)
    async with stock_host() as host:
        relay = CircuitV2Protocol(host, limits, allow_hop=True)
        async with background_trio_service(relay):
            await relay.event_started.wait()
            yield host, relay


async def hop(conn: Connection, message: bytes) -> tuple[NegotiatedStream, int]:
    stream = conn.open(HOP)
    await stream.send_message(message)
    answer = circuit_pb2.HopMessage.FromString(await stream.receive_message())
    return stream, answer.status


async def circuits(
    world: World, relay: IHost, count: int
) -> list[tuple[NegotiatedStream, NegotiatedStream]]:
    """Both ends of circuits to one of our hosts, as bare streams."""
    target = await world.host()
    send, incoming = trio.open_memory_channel[NegotiatedStream](count)

    async def accept(stream: NegotiatedStream, conn: Connection) -> None:
        await stream.receive_message()
        await stream.send_message(encode_stop_status(OK))
        send.send_nowait(stream)

    target.handle(STOP, accept)
    _, status = await hop(await connect(target, relay), encode_reserve())
    assert status == OK
    ends = []
    for _ in range(count):
        conn = await connect(await world.host(), relay)
        source, status = await hop(conn, encode_connect(target.peer_id))
        assert status == OK
        ends.append((source, await incoming.receive()))
    return ends


async def test_stock_defect_1_each_inbound_connection_takes_a_slot_for_ever(world: World) -> None:
    async with stock_host() as stock:
        network = stock.get_network()
        for _ in range(3):
            conn = await connect(await world.host(), stock)
            await conn.identified.wait()
            await conn.session.close(Reason.IDLE)
        await until(lambda: not network.get_total_connections())
        assert network._inbound_limiter.borrowed_tokens == 3


async def test_stock_defect_3_an_exception_in_a_handler_ends_the_host(world: World) -> None:
    async def broken(stream: object) -> None:
        raise ZeroDivisionError

    async def live() -> None:
        async with stock_host() as stock:
            stock.set_stream_handler("/broken", broken)
            conn = await connect(await world.host(), stock)
            await conn.open("/broken").flush()
            await trio.sleep(5)

    with pytest.raises(BaseExceptionGroup) as caught:
        await live()
    assert caught.group_contains(ZeroDivisionError)


async def test_stock_defect_4_the_end_of_one_circuit_ends_the_others(world: World) -> None:
    async with stock_relay() as (relay, _):
        [first, (second, _)] = await circuits(world, relay, 2)
        for end in first:
            await end.send_eof()
        with trio.fail_after(5):
            with suppress(StreamReset):
                assert await second.receive_some() == b""


async def test_stock_defect_5_a_reservation_is_booked_for_whom_the_message_names(
    world: World,
) -> None:
    ours, other = await world.host(), await world.host()
    async with stock_relay() as (relay, protocol):
        await connect(other, relay)
        forged = circuit_pb2.HopMessage(type=circuit_pb2.HopMessage.RESERVE)
        forged.peer.id = base58.b58decode(other.peer_id)
        _, status = await hop(await connect(ours, relay), forged.SerializeToString())
        assert status == OK
        assert protocol.resource_manager.has_reservation(ID.from_string(other.peer_id))
        assert not protocol.resource_manager.has_reservation(ID.from_string(ours.peer_id))


async def test_stock_defect_6_an_idle_circuit_outlives_its_time(world: World) -> None:
    async with stock_relay(seconds=1) as (relay, _):
        [(source, target)] = await circuits(world, relay, 1)
        with trio.move_on_after(1.5) as patience:
            await source.receive_some()
        assert patience.cancelled_caught
        with trio.move_on_after(0.1) as patience:
            await target.receive_some()
        assert patience.cancelled_caught


async def test_stock_defect_13_announces_the_unspecified_address() -> None:
    host = new_host()
    async with host.run(listen_addrs=[Multiaddr("/ip4/0.0.0.0/tcp/0")]):
        assert any("/ip4/0.0.0.0/" in str(address) for address in host.get_addrs())
