"""Hosts on the library's data plane and on ours: peers of each other in every mixture."""

from __future__ import annotations

import random

import pytest
import trio

from appliance.bridge.connection import Connection
from appliance.bridge.host import Host
from appliance.bridge.identity import Identity
from appliance.bridge.negotiate import NegotiatedStream
from appliance.bridge.relay import RelayService
from appliance.bridge.stack import OURS, Stack
from appliance.bridge.stock import STOCK
from appliance.bridge.telemetry import Telemetry
from appliance.reasons import Reason
from appliance.units import KIB
from tests.bridge.world import LIMITS, LOOPBACK, RELAY_LIMITS, RelayHost, World, until

ECHO = "/echo/1.0.0"
PAYLOAD = random.Random(8).randbytes(900 * KIB)
OF_A_CIRCUIT = PAYLOAD[: RELAY_LIMITS.circuit_bytes // 2]
stacks = {"ours": OURS, "stock": STOCK}


async def serve_echo(stream: NegotiatedStream, conn: Connection) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)
    await stream.aclose()


async def host(world: World, stack: Stack) -> Host:
    host = Host(Identity.generate(), LIMITS, Telemetry(), allow_private=True, stack=stack)
    host.handle(ECHO, serve_echo)
    return await world.start(host, (LOOPBACK,))


async def check_echo(conn: Connection, payload: bytes) -> None:
    got = bytearray()
    async with trio.open_nursery() as nursery:
        stream = conn.open(ECHO)

        async def send() -> None:
            await stream.send_all(payload)
            await stream.send_eof()

        nursery.start_soon(send)
        while data := await stream.receive_some():
            got += data
    assert bytes(got) == payload


@pytest.mark.parametrize("listener", stacks)
@pytest.mark.parametrize("dialler", stacks)
async def test_direct(world: World, dialler: str, listener: str) -> None:
    a, b = await host(world, stacks[dialler]), await host(world, stacks[listener])
    there = await world.connect(a, b)
    back = b.direct_to(a.peer_id)
    assert back is not None
    for conn in (there, back):
        await conn.identified.wait()
        assert conn.agent.startswith("kaspa-appliance/")
        await conn.session.first_byte()
    async with trio.open_nursery() as nursery:
        for conn in (there, back):
            for _ in range(2):
                nursery.start_soon(check_echo, conn, PAYLOAD)
    await there.session.close(Reason.IDLE)
    assert there.session.closed_reason is Reason.IDLE
    await until(lambda: not a.connections() and not b.connections())


@pytest.mark.parametrize("relay", stacks)
@pytest.mark.parametrize("ends", stacks)
async def test_through_a_relay(world: World, ends: str, relay: str) -> None:
    a, b = await host(world, stacks[ends]), await host(world, stacks[ends])
    middle = RelayHost(at := await host(world, stacks[relay]), RelayService(at, RELAY_LIMITS))
    middle.service.start()
    await world.reserve(b, middle)
    conn = await world.circuit(a, middle, b)
    await check_echo(conn, OF_A_CIRCUIT)
    await conn.session.close(Reason.IDLE)
    await until(lambda: not b.connections(a.peer_id))
