"""Circuits of the relay service: what they carry, how they end, what they leave alone."""

from __future__ import annotations

import pytest
import trio

from appliance.bridge.messages import (
    encode_connect,
)
from appliance.errors import StreamReset
from appliance.reasons import Reason
from appliance.wire.circuit import HOP
from tests.bridge.hops import (
    RESERVE,
    circuit,
    over,
    status,
    target_of,
)
from tests.bridge.strangers import ping
from tests.bridge.world import (
    World,
    until,
)


async def test_a_circuit_carries_both_ways_and_says_its_limits(world: World) -> None:
    relay = await world.relay()
    target = await target_of(world, relay)
    source = await world.host()
    ends = await circuit(world, relay, target, source)
    [request] = target.requests
    assert request.peer_id == source.peer_id
    assert (request.limit.seconds, request.limit.data_bytes) == (120, 131072)
    await ends.source.send_all(b"there")
    await ends.target.send_all(b"back")
    assert await ends.target.receive_exactly(5) == b"there"
    assert await ends.source.receive_exactly(4) == b"back"
    assert relay.service.table.circuits == 1
    assert relay.telemetry.circuits_opened == 1
    await until(lambda: relay.service.bytes_total == 9)
    assert not relay.telemetry.circuits_closed


async def test_bytes_sent_right_behind_the_request_belong_to_the_circuit(world: World) -> None:
    relay = await world.relay()
    target = await target_of(world, relay)
    conn = await world.connect(await world.host(), relay.host)
    stream = conn.open(HOP)
    request = encode_connect(target.host.peer_id)
    await stream.send_all(bytes([len(request)]) + request + b"early")
    incoming = await target.incoming.receive()
    assert await incoming.receive_exactly(5) == b"early"


@pytest.mark.parametrize("first", ["source", "target"])
async def test_half_close_is_carried_and_the_other_way_flows_on(world: World, first: str) -> None:
    relay = await world.relay()
    ends = await circuit(world, relay, await target_of(world, relay))
    near, far = (ends.source, ends.target) if first == "source" else (ends.target, ends.source)
    await near.send_all(b"my last words")
    await near.send_eof()
    assert await far.receive_exactly(13) == b"my last words"
    assert await far.receive_some() == b""
    for number in range(3):
        await far.send_all(bytes([number]) * 100)
        assert await near.receive_exactly(100) == bytes([number]) * 100
    assert relay.service.table.circuits == 1
    await far.send_eof()
    assert await near.receive_some() == b""
    await over(relay, "closed")
    assert relay.telemetry.relayed_bytes == relay.service.bytes_total == 313
    assert relay.telemetry.circuit_seconds > 0


@pytest.mark.parametrize("first", ["source", "target"])
async def test_reset_is_carried(world: World, first: str) -> None:
    relay = await world.relay()
    ends = await circuit(world, relay, await target_of(world, relay))
    near, far = (ends.source, ends.target) if first == "source" else (ends.target, ends.source)
    await near.send_all(b"x")
    assert await far.receive_exactly(1) == b"x"
    near.reset()
    with pytest.raises(StreamReset):
        await far.receive_some()
    await over(relay, "peer-reset")


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_defect_4_the_end_of_one_circuit_leaves_the_others_alone(
    world: World, how: str
) -> None:
    relay = await world.relay()
    target = await target_of(world, relay)
    first, second = await circuit(world, relay, target), await circuit(world, relay, target)
    if how == "reset":
        first.source.reset()
    else:
        await first.source.send_eof()
        await first.target.send_eof()
    await until(lambda: relay.service.table.circuits == 1)
    await second.source.send_all(b"alive")
    assert await second.target.receive_exactly(5) == b"alive"
    await second.target.send_all(b"and well")
    assert await second.source.receive_exactly(8) == b"and well"
    third = await circuit(world, relay, target)
    await third.source.send_all(b"new")
    assert await third.target.receive_exactly(3) == b"new"


async def test_defect_6_the_time_limit_ends_an_idle_circuit(world: World) -> None:
    relay = await world.relay(circuit_seconds=1)
    started = trio.current_time()
    ends = await circuit(world, relay, await target_of(world, relay))
    with trio.fail_after(5), pytest.raises(StreamReset):
        await ends.source.receive_some()
    assert 0.9 < trio.current_time() - started < 3
    with pytest.raises(StreamReset):
        await ends.target.receive_some()
    await over(relay, "circuit-time-limit")


async def test_the_time_limit_ends_a_busy_circuit_and_adds_nothing_to_its_bytes(
    world: World,
) -> None:
    relay = await world.relay(circuit_seconds=1, circuit_bytes=0)
    ends = await circuit(world, relay, await target_of(world, relay))
    received = bytearray()

    async def feed() -> None:
        with pytest.raises(StreamReset):  # noqa: PT012 - whichever send it is
            while True:
                await ends.source.send_all(b"." * 1000)
                await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed)
        with trio.fail_after(5), pytest.raises(StreamReset):  # noqa: PT012 - whichever it is
            while True:
                received += await ends.target.receive_some()
    # The library's relay writes a STATUS message into the stream at this point.
    assert set(received) == {ord(".")}
    await over(relay, "circuit-time-limit")


@pytest.mark.parametrize("way", ["forward", "backward"])
async def test_the_byte_limit_is_exact(world: World, way: str) -> None:
    relay = await world.relay(circuit_bytes=10_000)
    ends = await circuit(world, relay, await target_of(world, relay))
    near, far = (ends.source, ends.target) if way == "forward" else (ends.target, ends.source)
    await near.send_all(bytes(6_000))
    await near.send_all(bytes(4_000))
    assert len(await far.receive_exactly(10_000)) == 10_000
    # Each direction has its own count.
    await far.send_all(bytes(10_000))
    assert len(await near.receive_exactly(10_000)) == 10_000
    await near.send_all(b"!")
    with pytest.raises(StreamReset):
        await far.receive_some()
    with pytest.raises(StreamReset):
        await near.receive_some()
    await over(relay, "circuit-byte-limit")
    assert relay.telemetry.relayed_bytes == 20_000


@pytest.mark.parametrize("way", ["forward", "backward"])
async def test_the_rate_of_a_circuit_is_kept_and_nothing_is_lost(world: World, way: str) -> None:
    relay = await world.relay(circuit_bytes=0, circuit_bytes_per_second=400_000)
    ends = await circuit(world, relay, await target_of(world, relay))
    near, far = (ends.source, ends.target) if way == "forward" else (ends.target, ends.source)
    payload = bytes(range(256)) * 1200
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.send_all, payload)
        assert await far.receive_exactly(len(payload)) == payload
    elapsed = trio.current_time() - started
    # 64 KiB may come at once, and as much in advance.
    assert (len(payload) - 2 * 65_536) / 400_000 < elapsed < 5
    await near.send_eof()
    await far.send_eof()
    await over(relay, "closed")


async def test_circuits_share_what_the_relay_may_carry(world: World) -> None:
    relay = await world.relay(circuit_bytes=0, relay_bytes_per_second=1_000_000)
    target = await target_of(world, relay)
    circuits = [await circuit(world, relay, target) for _ in range(3)]
    carried = [0, 0, 0]
    with trio.move_on_after(1.5):
        async with trio.open_nursery() as nursery:

            async def swallow(number: int) -> None:
                while data := await circuits[number].target.receive_some():
                    carried[number] += len(data)

            async def feed(number: int, piece: int) -> None:
                while True:
                    await circuits[number].source.send_all(bytes(piece))

            for number, piece in enumerate((1_000, 60_000, 1_000_000)):
                nursery.start_soon(swallow, number)
                nursery.start_soon(feed, number, piece)
    assert sum(carried) <= 1_500_000 * 1.2 + 100_000 + 65_536
    assert min(carried) >= 0.6 * max(carried), "whatever each of them asks for"


async def test_the_time_limit_ends_a_circuit_that_waits_for_its_turn(world: World) -> None:
    relay = await world.relay(circuit_seconds=1, circuit_bytes=0, circuit_bytes_per_second=1_000)
    ends = await circuit(world, relay, await target_of(world, relay))
    await ends.source.send_all(bytes(200_000))
    with trio.fail_after(5), pytest.raises(StreamReset):
        await ends.target.receive_exactly(200_000)
    await over(relay, "circuit-time-limit")
    assert relay.telemetry.relayed_bytes < 200_000
    await until(lambda: relay.host.plane.unread == 0)
    assert not [alarm for alarm in relay.host.alarms._heap if alarm.call is not None]


async def test_all_that_the_byte_limit_allows_may_be_used(world: World) -> None:
    relay = await world.relay(circuit_bytes=10_000)
    ends = await circuit(world, relay, await target_of(world, relay))
    for near, far in ((ends.source, ends.target), (ends.target, ends.source)):
        await near.send_all(bytes(10_000))
        await near.send_eof()
        assert len(await far.receive_exactly(10_000)) == 10_000
        assert await far.receive_some() == b""
    await over(relay, "closed")
    assert relay.telemetry.relayed_bytes == 20_000


async def test_a_stalled_reader_stalls_its_sender_and_loses_nothing(world: World) -> None:
    relay = await world.relay(circuit_bytes=0)
    ends = await circuit(world, relay, await target_of(world, relay))
    data = bytes(range(256)) * 16 * 1024  # 4 MiB, more than every window on the way
    with trio.move_on_after(0.5) as patience:
        await ends.source.send_all(data)
    assert patience.cancelled_caught
    carried = relay.service.bytes_total
    await trio.sleep(0.1)
    assert relay.service.bytes_total == carried < len(data)
    assert await ends.target.receive_exactly(carried) == data[:carried]


@pytest.mark.parametrize("who", ["source", "target"])
async def test_a_peer_that_goes_away_frees_its_circuits(world: World, who: str) -> None:
    relay = await world.relay()
    target, source = await target_of(world, relay), await world.host()
    ends = [await circuit(world, relay, target, source) for _ in range(2)]
    await world.stop(source if who == "source" else target.host)
    for end in ends:
        with pytest.raises(StreamReset):
            await (end.target if who == "source" else end.source).receive_some()
    await until(lambda: relay.service.table.circuits == 0)
    assert relay.telemetry.circuits_closed.total() == relay.telemetry.circuits_opened == 2
    await until(lambda: relay.service.table.reservations == (1 if who == "source" else 0))
    assert not relay.telemetry.faults


async def test_a_cap_is_free_again_after_the_circuit(world: World) -> None:
    relay = await world.relay(circuits=1, circuits_per_peer=1)
    target, source = await target_of(world, relay), await world.host()
    for _ in range(3):
        ends = await circuit(world, relay, target, source)
        ends.source.reset()
        await until(lambda: relay.service.table.circuits == 0)


async def test_draining_refuses_what_is_new_and_lets_circuits_end(world: World) -> None:
    relay = await world.relay()
    target = await target_of(world, relay)
    ends = await circuit(world, relay, target)
    relay.service.table.draining = True
    holder = target.host.direct_to(relay.peer_id)
    assert holder is not None
    assert await status(holder, RESERVE) == 200  # no renewal either
    await ends.source.send_all(b"carry on")
    assert await ends.target.receive_exactly(8) == b"carry on"


async def test_a_real_connection_runs_through_it(world: World) -> None:
    relay, a, b = await world.relay(), await world.host(), await world.host()
    await world.reserve(b, relay)
    conn = await world.circuit(a, relay, b)
    assert conn.peer_id == b.peer_id and conn.relayed
    assert await ping(conn, b"through the relay") == b"through the relay"
    await conn.session.close(Reason.IDLE)
    await until(lambda: relay.service.table.circuits == 0)
    assert not relay.telemetry.faults
