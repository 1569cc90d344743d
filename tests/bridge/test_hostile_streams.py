"""Authenticated peers that mean harm. Each is survived, bounded and counted; then a good peer is
served."""

from __future__ import annotations

import contextlib
from functools import partial

import base58
import pytest
import trio
from libp2p.relay.circuit_v2.pb import circuit_pb2

from appliance.bridge import identify
from appliance.bridge.circuits import CircuitAcceptor
from appliance.bridge.connection import Connection
from appliance.bridge.host import YAMUX, Host
from appliance.bridge.messages import encode_incoming_circuit
from appliance.bridge.negotiate import NegotiatedStream
from appliance.dataplane.session import MuxStream
from appliance.errors import Fault, StreamReset
from appliance.reasons import Reason
from appliance.wire import multistream
from appliance.wire.circuit import HOP, STOP, Limit
from appliance.wire.dcutr import PROTOCOL as DCUTR
from appliance.wire.framing import encode_varint
from tests.bridge.strangers import PING, assert_serves, channel_to, ended, living_tasks, session_to
from tests.bridge.world import World, logged, until
from tests.dataplane.frames import ACK, DATA, RST, SYN, data, frame, window
from tests.dataplane.frames import PING as YAMUX_PING


async def muxed_to(host: Host) -> NegotiatedStream:
    """An authenticated channel where we write yamux frames by hand."""
    muxed = NegotiatedStream.propose(await channel_to(host), YAMUX)
    await muxed.confirmed()
    await until(host.connections)
    return muxed


# --- on the muxer


@pytest.mark.parametrize(
    "frames",
    [
        b"\xff" * 12,
        data(99, b"12345"),
        frame(DATA, SYN, 2, 0),
        window(1, flags=SYN) * 2,
        frame(DATA, SYN, 1, 10_000_000),
        window(1, 0xFFFF_FFFF, SYN) + window(1, 9),
        frame(YAMUX_PING, SYN | ACK, 0, 1),
    ],
    ids=["garbage", "unknown", "parity", "twice", "over-window", "window-overflow", "ping"],
)
async def test_frames_that_break_the_muxer_end_the_connection(world: World, frames: bytes) -> None:
    host = await world.host()
    muxed = await muxed_to(host)
    await muxed.send_all(frames)
    await ended(muxed)
    await until(lambda: not host.connections())
    assert host.telemetry.connections_closed == {Reason.YAMUX_VIOLATION: 1}
    muxed.reset()
    await assert_serves(world, host)


async def test_a_thousand_streams_at_once(world: World) -> None:
    host = await world.host()
    muxed = await muxed_to(host)
    tasks = living_tasks()
    proposal = multistream.line(multistream.HEADER) + multistream.line(PING) + b"x"
    for number in range(1000):
        stream_id = 2 * number + 1
        await muxed.send_all(window(stream_id, flags=SYN) + data(stream_id, proposal))
    [conn] = host.connections()
    await until(lambda: conn.session.streams_refused >= 1000 - 64)
    assert living_tasks() - tasks <= 70
    await assert_serves(world, host)
    muxed.reset()
    await until(lambda: len(host.connections()) == 0)
    assert host.telemetry.refusals["stream", Reason.STREAMS_FULL] >= 1000 - 64


async def test_streams_opened_and_reset_as_fast_as_can_be(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    host = await world.host()
    muxed = await muxed_to(host)
    most = 0
    for batch in range(10):
        frames = b"".join(
            window(stream_id, flags=SYN) + window(stream_id, flags=RST)
            for stream_id in range(2000 * batch + 1, 2000 * batch + 2001, 2)
        )
        await muxed.send_all(frames)
        most = max(most, living_tasks())
    with contextlib.suppress(StreamReset):  # whichever way it is stopped
        await muxed.send_all(frame(YAMUX_PING, SYN, 0, 7))
    await assert_serves(world, host)
    assert most < 400
    assert len(caplog.records) < 100
    muxed.reset()
    await until(lambda: len(host.connections()) == 0)
    assert not host.telemetry.faults


async def test_pings_whose_answers_are_never_read(world: World) -> None:
    host = await world.host()
    muxed = await muxed_to(host)
    flood = frame(YAMUX_PING, SYN, 0, 1) * 5000
    with contextlib.suppress(StreamReset), trio.move_on_after(3):
        for _ in range(400):  # 24 MB of pings
            await muxed.send_all(flood)
    await assert_serves(world, host)
    muxed.reset()
    await until(lambda: len(host.connections()) == 0)


# --- on streams


@pytest.mark.parametrize("protocol", [HOP, STOP, DCUTR, identify.PUSH])
@pytest.mark.parametrize(
    "garbage",
    [b"\xff" * 200_000, encode_varint(100_000) + bytes(100_000), b"\x00" * 50_000],
    ids=["ff", "100k-message", "empty-messages"],
)
async def test_a_stream_flooded_with_garbage(world: World, protocol: str, garbage: bytes) -> None:
    relay = await world.relay()
    CircuitAcceptor(relay.host, lambda _: True)

    async def dcutr(stream: NegotiatedStream, conn: Connection) -> None:
        await stream.receive_message()
        raise Fault(Reason.PUNCH_PROTOCOL)

    relay.host.handle(DCUTR, dcutr)
    session = await session_to(world, relay.host)
    stream = NegotiatedStream.propose(session.open_stream(), protocol)

    async def flood() -> None:
        with contextlib.suppress(StreamReset):
            await stream.send_all(garbage)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood)
        await ended(stream)
        nursery.cancel_scope.cancel()
    assert not session.closed.is_set()
    # An empty identify is a legal one; all else is refused, once.
    legal = protocol == identify.PUSH and garbage.startswith(b"\0")
    assert relay.telemetry.refusals.total() == (0 if legal else 1)
    assert not relay.telemetry.faults
    [conn] = relay.host.connections()
    stream.reset()
    await until(lambda: conn.serving == 0)
    await assert_serves(world, relay.host)


async def test_endless_proposals_on_a_stream(world: World) -> None:
    host = await world.host()
    session = await session_to(world, host)
    stream = session.open_stream()
    flood = multistream.line(multistream.HEADER) + multistream.line("/nothing") * 20_000
    with contextlib.suppress(StreamReset):
        await stream.send_all(flood)
    await until(lambda: host.telemetry.refusals["stream", Reason.UNSUPPORTED_PROTOCOL] == 1)
    stream.reset()
    await assert_serves(world, host)


def refused_more_than(host: Host, count: int) -> bool:
    return host.telemetry.refusals.total() > count


async def test_faults_on_streams_do_not_flood_the_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    host = await world.host()
    session = await session_to(world, host)
    for number in range(100):
        stream = session.open_stream()
        await stream.send_all(b"\xff" * 20)
        await until(partial(refused_more_than, host, number))
    assert host.telemetry.refusals["stream", Reason.MALFORMED_MESSAGE] == 100
    assert len(logged(caplog, "refused")) < 10
    assert len(caplog.records) < 30


async def test_an_identify_that_is_none(world: World) -> None:
    host = await world.host()
    streams: list[MuxStream] = []
    session = await session_to(world, host, on_stream=streams.append)
    await until(lambda: streams)
    raw = streams[0]
    await raw.receive_some()
    reply = multistream.line(multistream.HEADER) + multistream.line("/ipfs/id/1.0.0")
    with contextlib.suppress(StreamReset):
        await raw.send_all(reply + encode_varint(100_000) + bytes(100_000))
    [conn] = host.connections()
    await conn.identified.wait()
    assert conn.agent == "" and conn.observed is None
    await until(lambda: conn.session.open_streams == 0)
    assert not session.closed.is_set()
    await assert_serves(world, host)


async def test_reservations_asked_for_without_end(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    relay = await world.relay(reservations=2)
    session = await session_to(world, relay.host)
    reserve = circuit_pb2.HopMessage(type=circuit_pb2.HopMessage.RESERVE).SerializeToString()
    for _ in range(100):
        stream = NegotiatedStream.propose(session.open_stream(), HOP)
        await stream.send_message(reserve)
        answer = circuit_pb2.HopMessage.FromString(await stream.receive_message())
        assert answer.status == 100
        stream.reset()
    assert relay.service.table.reservations == 1
    assert relay.telemetry.reservations_renewed == 99
    await assert_serves(world, relay.host)


async def test_circuits_asked_for_and_dropped(world: World) -> None:
    """Each leaves us knocking at the target: the caps bound how many."""
    relay, target = await world.relay(circuits_per_peer=4), await world.host()
    await world.reserve(target, relay)
    knocks = 0

    async def silence(stream: NegotiatedStream, conn: Connection) -> None:
        nonlocal knocks
        knocks += 1
        await trio.sleep_forever()

    target.handle(STOP, silence)
    session = await session_to(world, relay.host)
    connect = circuit_pb2.HopMessage(type=circuit_pb2.HopMessage.CONNECT)
    connect.peer.id = base58.b58decode(target.peer_id)
    for _ in range(50):
        stream = NegotiatedStream.propose(session.open_stream(), HOP)
        await stream.send_message(connect.SerializeToString())
        await session.ping()
        stream.reset()
    assert relay.service.table.circuits <= 4 and knocks <= 4
    assert relay.telemetry.refusals["circuit", Reason.CIRCUITS_PER_PEER_FULL] >= 40
    session.abort(Reason.IDLE)
    await until(lambda: relay.service.table.circuits == 0)
    await assert_serves(world, relay.host)


async def test_stop_from_a_stranger(world: World) -> None:
    host = await world.host()
    CircuitAcceptor(host, lambda _: False)
    session = await session_to(world, host)
    for _ in range(70):  # more than the streams that it may have open
        stream = NegotiatedStream.propose(session.open_stream(), STOP)
        await stream.send_message(encode_incoming_circuit(host.peer_id, Limit()))
        answer = circuit_pb2.StopMessage.FromString(await stream.receive_message())
        assert answer.status == 202
        await stream.aclose()
        await session.ping()
    assert host.telemetry.refusals == {("stop", Reason.STOP_FROM_STRANGER): 70}
    await assert_serves(world, host)
